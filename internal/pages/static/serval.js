// Everything works without this file. It puts times into the reader's zone, counts
// down, finds roles as one types, copies to the clipboard, and looks again at what
// is under way.
"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const all = (selector, within = document) => within.querySelectorAll(selector);

  const times = (within) => {
    for (const e of all("time[datetime]", within)) {
      const at = new Date(e.dateTime);
      if (isNaN(at) || e.title) continue;
      e.title = e.textContent;
      e.textContent = at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    }
  };

  const left = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
    if (d > 0) return `${d} d ${h} h`;
    if (h > 0) return `${h} h ${String(m).padStart(2, "0")} min`;
    return `${m}:${String(s % 60).padStart(2, "0")} min`;
  };
  const tick = () => {
    for (const e of all("[data-until]")) {
      const ms = new Date(e.dataset.until) - Date.now();
      e.textContent = ms > 0 ? left(ms) : "0 min";
      e.classList.toggle("soon", ms < 300000);
    }
  };

  const copies = (within) => {
    for (const button of all("button[data-copy]", within)) {
      if (!navigator.clipboard) continue;
      button.hidden = false;
      const said = button.textContent;
      button.setAttribute("aria-live", "polite");
      button.addEventListener("click", async () => {
        const what = document.getElementById(button.dataset.copy);
        try {
          await navigator.clipboard.writeText(what.value === undefined ? what.textContent : what.value);
          button.textContent = "Copied";
          button.classList.add("copied");
        } catch {
          button.textContent = "Select and copy it";
        }
        setTimeout(() => { button.textContent = said; button.classList.remove("copied"); }, 2000);
      });
    }
  };

  const refreshed = (within) => { times(within); copies(within); tick(); };
  refreshed(document);
  setInterval(tick, 1000);

  // fetched returns the element of another state of a page of ours, or nothing.
  const fetched = async (address, id, signal) => {
    const res = await fetch(address, { signal, headers: { Accept: "text/html" } });
    if (!res.ok || res.redirected) return null;
    return new DOMParser().parseFromString(await res.text(), "text/html").getElementById(id);
  };

  // A list that is searched as one types: the server does it, for thousands.
  for (const box of all("input[data-live]")) {
    const form = box.form;
    let waiting, asked;
    const find = async () => {
      asked?.abort();
      asked = new AbortController();
      const list = document.getElementById(box.dataset.live);
      const query = new URLSearchParams(new FormData(form));
      for (const [name, value] of [...query]) if (!value) query.delete(name);
      const address = form.action + (query.size ? "?" + query : "");
      list.setAttribute("aria-busy", "true");
      try {
        const next = await fetched(address, list.id, asked.signal);
        if (!next) return location.assign(address);
        list.replaceWith(next);
        refreshed(next);
        history.replaceState(null, "", address);
      } catch (e) {
        if (e.name !== "AbortError") list.removeAttribute("aria-busy");
      }
    };
    box.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(find, 120);
    });
  }

  // What is under way is looked at again, unless somebody is at work in it: also where
  // they began while the answer was on its way.
  const busy = (part) => document.hidden || part.contains(document.activeElement) || part.querySelector("details[open]:not([data-unfolded])");
  for (const part of all("[data-refresh]")) {
    const id = part.id;
    const again = async () => {
      const now = document.getElementById(id);
      if (!now?.dataset.refresh) return;
      if (!busy(now)) {
        try {
          const next = await fetched(location.href, id);
          if (next && !busy(now) && next.innerHTML !== now.dataset.was) {
            next.dataset.was = next.innerHTML;
            now.replaceWith(next);
            refreshed(next);
          }
        } catch { /* the next time */ }
      }
      setTimeout(again, Number(document.getElementById(id)?.dataset.refresh || 0) * 1000 || 60000);
    };
    setTimeout(again, Number(part.dataset.refresh) * 1000);
  }

  // What was just done is said once: not to whoever looks at the page again.
  if (all("[data-said]").length > 0) {
    const here = new URL(location.href);
    here.searchParams.delete("decided");
    history.replaceState(null, "", here);
  }

  // Folded parts of which one is open become tabs.
  for (const box of all("[data-tabs]")) {
    const names = [];
    const panels = [...all(":scope > details", box)].map((folded) => {
      const panel = document.createElement("div");
      names.push(folded.querySelector("summary").textContent);
      folded.querySelector("summary").remove();
      panel.id = folded.id;
      panel.append(...folded.childNodes);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", panel.id + "-tab");
      folded.replaceWith(panel);
      return panel;
    });
    const list = document.createElement("div");
    list.className = "tabs";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", box.getAttribute("aria-label"));
    const remembered = localStorage.getItem("tab " + box.dataset.tabs);
    const tabs = panels.map((panel, i) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = names[i];
      tab.id = panel.id + "-tab";
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      tab.addEventListener("click", () => choose(i));
      tab.addEventListener("keydown", (e) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (!step) return;
        const to = (i + step + tabs.length) % tabs.length;
        choose(to);
        tabs[to].focus();
      });
      list.append(tab);
      return tab;
    });
    const choose = (n) => {
      panels.forEach((panel, i) => {
        panel.hidden = i !== n;
        tabs[i].setAttribute("aria-selected", i === n);
        tabs[i].tabIndex = i === n ? 0 : -1;
      });
      localStorage.setItem("tab " + box.dataset.tabs, panels[n].id);
    };
    choose(Math.max(0, panels.findIndex((p) => p.id === remembered)));
    box.classList.add("tabbed");
    box.prepend(list);
  }

  // An instant is entered in the reader's zone and sent as what it is.
  for (const input of all("input[data-instant]")) {
    const hint = input.closest(".field").querySelector("[data-zone]");
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (hint) hint.textContent = hint.textContent.replace("In UTC", "In your time zone, " + zone);
    const given = new Date(input.value + (input.value.endsWith("Z") || !input.value ? "" : "Z"));
    if (!isNaN(given)) input.value = new Date(given - given.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
    input.form.addEventListener("submit", () => {
      const at = new Date(input.value);
      if (isNaN(at)) return;
      const sent = document.createElement("input");
      sent.type = "hidden";
      sent.name = input.name;
      sent.value = at.toISOString();
      input.removeAttribute("name");
      input.form.append(sent);
    });
  }

  // Keys: within a list of cards, j and k go on and back, a and d to what decides;
  // they do nothing while a field has them.
  const typing = (e) => e.target.matches("input:not([type=checkbox], [type=radio]), textarea, select");
  for (const list of all("[data-cards]")) {
    const cards = [...all(":scope > .card", list)];
    document.addEventListener("keydown", (e) => {
      if (typing(e) || e.ctrlKey || e.metaKey || e.altKey) return;
      const here = cards.findIndex((c) => c.contains(document.activeElement));
      const to = { j: here + 1, k: here - 1 }[e.key];
      const on = { a: "[data-approve]", d: "[data-reason]" }[e.key];
      if (to !== undefined) cards[Math.min(Math.max(to, 0), cards.length - 1)]?.focus();
      else if (on && here >= 0) cards[here].querySelector(on)?.focus();
      else return;
      e.preventDefault();
    });
  }

  // What was shown once stays with the page that showed it: not with a copy of
  // the page that the browser keeps for the way back.
  const once = all("[data-once]");
  if (once.length > 0) {
    addEventListener("pagehide", () => { for (const e of once) e.textContent = ""; });
  }

  // What was written is not lost where a form leads to a sign-in instead: whoever
  // comes back from there, and nobody else, finds it in the form again. It stays in
  // this tab, until another page comes.
  const reader = document.querySelector(".me a")?.textContent;
  const written = JSON.parse(sessionStorage.getItem("written"));
  const door = document.querySelector("[data-door]");
  if (written && door) {
    const to = new URL(door.href);
    to.searchParams.set("return_to", written.page);
    if (to.pathname === "/oidc/auth/login") door.href = to;
  } else if (written) {
    sessionStorage.removeItem("written");
    const form = written.reader === reader && [...all("form")].find((f) => f.getAttribute("action") === written.action);
    for (const [name, value] of form ? written.fields : []) {
      for (const e of form.querySelectorAll("input:not([type=hidden]), textarea, select")) {
        if (e.name !== name) continue;
        if (e.type === "radio" || e.type === "checkbox") e.checked = e.value === value || e.checked && e.type === "checkbox";
        else e.value = value;
        if (value && e.closest("details")) e.closest("details").open = true;
      }
    }
  }
  document.addEventListener("submit", ({ target: form }) => {
    if (form.method !== "post" || !form.querySelector("textarea, [data-reason]")) return;
    sessionStorage.setItem("written", JSON.stringify({ reader, page: location.pathname + location.search, action: form.getAttribute("action"), fields: [...new FormData(form)] }));
  }, true);
})();
