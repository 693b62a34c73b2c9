package web_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/launcher"
	"github.com/go-rod/rod/lib/proto"
)

// A screen is what a page is looked at on.
type screen struct {
	name          string
	width, height int
	dark          bool
	script        bool
}

var (
	phone   = screen{name: "phone", width: 360, height: 740, script: true}
	desktop = screen{name: "desktop", width: 1280, height: 860, script: true}
)

func (s screen) inTheDark() screen     { s.dark = true; return s }
func (s screen) withoutScript() screen { s.script = false; return s }

// chromium is one headless Chromium for all tests of the package.
var chromium = struct {
	sync.Once
	missing string
	browser *rod.Browser
	stop    func()
}{}

// startChromium returns a Chromium, or skips the test where there is none.
func startChromium(t testing.TB) *rod.Browser {
	t.Helper()
	chromium.Do(func() {
		bin, err := exec.LookPath("chromium")
		if err != nil {
			chromium.missing = "there is no chromium in PATH: Debian package chromium"
			return
		}
		dir, err := os.MkdirTemp("", "serval-chromium-")
		if err != nil {
			t.Fatal(err)
		}
		l := launcher.New().Bin(bin).Leakless(false).Headless(true).NoSandbox(true).UserDataDir(dir).
			Set("disable-dev-shm-usage").Set("disable-gpu").Set("hide-scrollbars").Set("font-render-hinting", "none").
			Set("lang", "en-GB").Set("force-color-profile", "srgb").Env(append(os.Environ(), "TZ=Europe/Berlin", "LANGUAGE=en_GB")...)
		at, err := l.Launch()
		if err != nil {
			t.Fatalf("starting Chromium: %v", err)
		}
		chromium.browser = rod.New().ControlURL(at)
		if err := chromium.browser.Connect(); err != nil {
			t.Fatalf("reaching Chromium: %v", err)
		}
		chromium.stop = func() {
			_ = chromium.browser.Close()
			l.Kill()
			_ = os.RemoveAll(dir)
		}
	})
	if chromium.missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(chromium.missing)
		}
		t.Skip(chromium.missing)
	}
	if chromium.browser == nil {
		t.Fatal("Chromium did not start")
	}
	return chromium.browser
}

func TestMain(m *testing.M) {
	code := m.Run()
	if chromium.stop != nil {
		chromium.stop()
	}
	os.Exit(code)
}

// A tab is a page in a Chromium profile of its own.
type tab struct {
	t    testing.TB
	w    *world
	root *rod.Page
	page *rod.Page // with an end to its patience
	on   screen

	profile proto.BrowserBrowserContextID
}

// patience with Chromium: a busy machine is slow.
const chromiumTime = time.Minute

// tab opens a tab on a screen. What its pages do against their policy is a fault
// of the test.
func (w *world) tab(on screen) *tab {
	w.t.Helper()
	b, err := startChromium(w.t).Incognito()
	if err != nil {
		w.t.Fatal(err)
	}
	page, err := b.Page(proto.TargetCreateTarget{URL: "about:blank"})
	if err != nil {
		w.t.Fatal(err)
	}
	b2 := &tab{t: w.t, w: w, root: page, page: page.Timeout(chromiumTime), on: on, profile: b.BrowserContextID}
	w.t.Cleanup(func() { _ = proto.TargetDisposeBrowserContext{BrowserContextID: b.BrowserContextID}.Call(b) })
	b2.show(on)
	b2.must(proto.EmulationSetScriptExecutionDisabled{Value: !on.script}.Call(page))
	b2.must(proto.EmulationSetTimezoneOverride{TimezoneID: "Europe/Berlin"}.Call(page))
	// Of two tabs one has the focus, without which nothing is copied: each has it.
	b2.must(proto.EmulationSetFocusEmulationEnabled{Enabled: true}.Call(page))
	if _, err := page.EvalOnNewDocument(`window.broken = []; addEventListener("securitypolicyviolation", (e) => broken.push(e.violatedDirective + " " + e.blockedURI + " " + e.sourceFile)); addEventListener("error", (e) => broken.push(String(e.message)));`); err != nil {
		w.t.Fatal(err)
	}
	return b2
}

// show moves the tab to another screen.
func (b *tab) show(on screen) {
	b.t.Helper()
	b.on = on
	b.fresh()
	b.must(b.page.SetViewport(&proto.EmulationSetDeviceMetricsOverride{Width: on.width, Height: on.height, DeviceScaleFactor: 1, Mobile: on.width < 600}))
	scheme := "light"
	if on.dark {
		scheme = "dark"
	}
	b.must(proto.EmulationSetEmulatedMedia{Features: []*proto.EmulationMediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}.Call(b.page))
}

// context returns the id of the tab's profile.
func (b *tab) context() proto.BrowserBrowserContextID { return b.profile }

func (b *tab) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// fresh gives the tab its whole patience again.
func (b *tab) fresh() { b.page = b.root.Timeout(chromiumTime) }

// enter puts the login of somebody who is signed in already into the tab.
func (b *tab) enter(who *browser) *tab {
	b.t.Helper()
	c := who.cookie("__Host-serval")
	_, err := proto.NetworkSetCookie{Name: c.Name, Value: c.Value, URL: b.w.url, Secure: true, HTTPOnly: true, Path: "/"}.Call(b.page)
	b.must(err)
	return b
}

// open opens a page of ours, or one by its whole address.
func (b *tab) open(path string) {
	b.t.Helper()
	b.fresh()
	if strings.HasPrefix(path, "/") {
		path = b.w.url + path
	}
	b.follow(func() error { return b.page.Navigate(path) })
}

// follow does what leads to another page, and waits for that.
func (b *tab) follow(do func() error) {
	b.t.Helper()
	b.fresh()
	was := b.document()
	b.must(do())
	b.wait("another page", func() bool { is := b.document(); return is != "" && is != was })
	b.wait("the whole page", func() bool {
		res, err := b.page.Eval(`() => document.readyState`)
		return err == nil && res.Value.Str() == "complete"
	})
}

// back goes back by one page.
func (b *tab) back() {
	b.t.Helper()
	b.follow(func() error {
		history, err := proto.PageGetNavigationHistory{}.Call(b.page)
		if err != nil || history.CurrentIndex == 0 {
			return fmt.Errorf("there is no way back: %w", err)
		}
		return proto.PageNavigateToHistoryEntry{EntryID: history.Entries[history.CurrentIndex-1].ID}.Call(b.page)
	})
}

// document returns what is another one for each page that is loaded.
func (b *tab) document() proto.NetworkLoaderID {
	tree, err := proto.PageGetFrameTree{}.Call(b.page)
	if err != nil {
		return ""
	}
	return tree.FrameTree.Frame.LoaderID
}

// wait waits for something, with patience.
func (b *tab) wait(what string, is func() bool) {
	b.t.Helper()
	b.fresh()
	for end := time.Now().Add(chromiumTime); !is(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited for %s in vain at %s", what, b.at())
		}
	}
}

// find returns the first element that fits, which must be there.
func (b *tab) find(selector string) *rod.Element {
	b.t.Helper()
	e, err := b.page.Element(selector)
	if err != nil {
		b.t.Fatalf("%s on %s: %v", selector, b.at(), err)
	}
	return e
}

// button returns the button or link that says just this.
func (b *tab) button(text string) *rod.Element {
	b.t.Helper()
	e, err := b.page.ElementR("button, a, summary, label", "^\\s*"+text+"\\s*$")
	if err != nil {
		b.t.Fatalf("nothing to press says %q on %s: %v", text, b.at(), err)
	}
	return e
}

// held returns an element that is in the page, and gives it the focus. A page that
// looks again by itself may put another in the place of what was found, but not of
// what has the focus.
func (b *tab) held(find func() *rod.Element) *rod.Element {
	b.t.Helper()
	for {
		e := find()
		_ = proto.DOMFocus{ObjectID: e.Object.ObjectID}.Call(b.page) // not all can have it
		if there, err := e.Eval(`() => this.isConnected`); err != nil || there.Value.Bool() {
			return e
		}
	}
}

// tap presses what says this, which leads nowhere.
func (b *tab) tap(text string) {
	b.t.Helper()
	b.must(b.click(b.held(func() *rod.Element { return b.button(text) })))
}

// tapOn presses an element that leads nowhere.
func (b *tab) tapOn(selector string) {
	b.t.Helper()
	b.must(b.click(b.held(func() *rod.Element { return b.find(selector) })))
}

// press presses what says this and waits for the page that it leads to.
func (b *tab) press(text string) {
	b.t.Helper()
	b.follow(func() error { return b.click(b.held(func() *rod.Element { return b.button(text) })) })
}

// pressOn presses an element that leads to another page.
func (b *tab) pressOn(selector string) {
	b.t.Helper()
	b.follow(func() error { return b.click(b.held(func() *rod.Element { return b.find(selector) })) })
}

// click clicks in the middle of an element, as a mouse does. What the driver has
// for that waits for frames of animation, of which a page without script has none.
func (b *tab) click(e *rod.Element) error {
	if err := (proto.DOMScrollIntoViewIfNeeded{ObjectID: e.Object.ObjectID}).Call(b.page); err != nil {
		return err
	}
	found, err := proto.DOMGetContentQuads{ObjectID: e.Object.ObjectID}.Call(b.page)
	if err != nil || len(found.Quads) == 0 {
		return fmt.Errorf("nothing to click on: %w", err)
	}
	q := found.Quads[0]
	x, y := (q[0]+q[4])/2, (q[1]+q[5])/2
	for _, what := range []proto.InputDispatchMouseEventType{proto.InputDispatchMouseEventTypeMouseMoved, proto.InputDispatchMouseEventTypeMousePressed, proto.InputDispatchMouseEventTypeMouseReleased} {
		event := proto.InputDispatchMouseEvent{Type: what, X: x, Y: y, Button: proto.InputMouseButtonLeft, ClickCount: 1}
		if err := event.Call(b.page); err != nil {
			return err
		}
	}
	return nil
}

// fill types into a field, in place of what is there.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.must2(b.held(func() *rod.Element { return b.find(selector) }).Eval(`() => this.select()`))
	b.must(proto.InputInsertText{Text: text}.Call(b.page))
}

// at returns the path that the tab is at. The page itself knows it; the browser
// around it, which the driver would ask, hears of a new one a moment later.
func (b *tab) at() string {
	res, err := b.root.Timeout(chromiumTime).Eval(`() => location.href`)
	if err != nil {
		return err.Error()
	}
	return strings.TrimPrefix(res.Value.Str(), b.w.url)
}

// text returns what a person reads.
func (b *tab) text() string {
	b.t.Helper()
	return b.eval(`() => document.body.innerText`)
}

// eval returns what a function in the page does, as text.
func (b *tab) eval(js string) string {
	b.t.Helper()
	var res *proto.RuntimeRemoteObject
	var err error
	for range 5 { // a page may be on its way out
		if res, err = b.page.Eval(js); err == nil {
			return res.Value.Str()
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.must(err)
	return ""
}

// sound fails the test where the page does what its policy forbids, where a
// script of it fails, or where it is wider than its screen.
func (b *tab) sound() {
	b.t.Helper()
	if said := b.eval(`() => JSON.stringify(window.broken || [])`); said != "[]" {
		b.t.Errorf("%s (%s): %s", b.at(), b.on.name, said)
	}
	if wide := b.eval(`() => { const w = document.documentElement; if (w.scrollWidth <= w.clientWidth) return "";
		return [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > w.clientWidth + 1 && !e.closest(".wide, pre")).slice(0, 5).map((e) => e.outerHTML.slice(0, 120)).join("\n"); }`); wide != "" {
		b.t.Errorf("%s (%s): wider than the screen:\n%s", b.at(), b.on.name, wide)
	}
}

// axe returns what axe-core finds against WCAG 2.2 AA and its own best practices.
func (b *tab) axe() (found []string) {
	b.t.Helper()
	b.fresh()
	b.must2(b.page.Eval(axeSource(b.t)))
	res, err := b.page.Evaluate(rod.Eval(`() => axe.run(document, {resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
		.then((r) => JSON.stringify(r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.target.join(" ") + " " + (n.any[0] || n.all[0] || n.none[0] || {message: ""}).message).join("; "))))`).ByPromise())
	b.must(err)
	b.must(json.Unmarshal([]byte(res.Value.Str()), &found))
	return found
}

func (b *tab) must2(_ any, err error) {
	b.t.Helper()
	b.must(err)
}

var axe = struct {
	sync.Once
	source string
}{}

// axeVersion is that of testdata/axe-core.
const axeVersion = "4.14.1"

// axeSource returns a function that defines axe, or skips the test where it is
// not installed.
func axeSource(t testing.TB) string {
	t.Helper()
	axe.Do(func() {
		home, err := os.UserHomeDir()
		if err != nil {
			return
		}
		text, err := os.ReadFile(filepath.Join(home, ".cache", "serval-tools", "axe-core-"+axeVersion, "node_modules", "axe-core", "axe.min.js"))
		if err == nil {
			axe.source = fmt.Sprintf("() => { if (!window.axe) { %s } }", text)
		}
	})
	if axe.source == "" {
		const missing = "npm's axe-core is not installed: make axe-core"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return axe.source
}

// shoot returns a picture of the whole page.
func (b *tab) shoot() []byte {
	b.t.Helper()
	png, err := b.page.Screenshot(true, &proto.PageCaptureScreenshot{Format: proto.PageCaptureScreenshotFormatPng})
	b.must(err)
	return png
}
