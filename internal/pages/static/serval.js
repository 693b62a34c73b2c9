// Everything works without this file. It puts times into the reader's zone,
// counts down, filters lists as one types, and copies to the clipboard.
"use strict";
(() => {
  const day = { dateStyle: "medium", timeStyle: "short" };
  for (const e of document.querySelectorAll("time[datetime]")) {
    const at = new Date(e.dateTime);
    if (isNaN(at)) continue;
    e.title = e.textContent;
    e.textContent = at.toLocaleString([], day);
  }

  const left = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
    if (d > 0) return `${d} d ${h} h`;
    if (h > 0) return `${h} h ${String(m).padStart(2, "0")} min`;
    return `${m}:${String(s % 60).padStart(2, "0")} min`;
  };
  const clocks = [...document.querySelectorAll("[data-until]")].map((e) => [e, new Date(e.dataset.until)]);
  const tick = () => {
    for (const [e, end] of clocks) {
      const ms = end - Date.now();
      e.textContent = ms > 0 ? left(ms) : "0 min";
      e.classList.toggle("soon", ms < 300000);
    }
  };
  if (clocks.length > 0) {
    tick();
    setInterval(tick, 1000);
  }

  for (const box of document.querySelectorAll("[data-filters]")) {
    const list = document.getElementById(box.dataset.filters);
    const none = document.getElementById(box.dataset.filters + "-none");
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const group of list.querySelectorAll("[data-group]")) {
        let here = 0;
        for (const row of group.querySelectorAll("[data-text]")) {
          const fits = words.every((w) => row.dataset.text.includes(w));
          row.hidden = !fits;
          if (fits) here++;
        }
        group.hidden = here === 0;
        shown += here;
      }
      if (none) none.hidden = shown > 0;
    });
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    const said = button.textContent;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select and copy it";
      }
      setTimeout(() => { button.textContent = said; }, 2000);
    });
  }

  // What was shown once stays with the page that showed it: not with a copy of
  // the page that the browser keeps for the way back.
  const once = document.querySelectorAll("[data-once]");
  if (once.length > 0) {
    addEventListener("pagehide", () => { for (const e of once) e.textContent = ""; });
  }
})();
