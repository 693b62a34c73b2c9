package pages

import "testing"

func TestAgent(t *testing.T) {
	for text, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/150.0.0.0 Safari/537.36":                              "Chrome on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36 Edg/150.0.0.0":              "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15":                      "Safari on macOS",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0":                                                       "Firefox on macOS",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/150.0.0.0 Mobile/15E148 Safari/604.1": "Chrome on an iPhone",
		"Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Mobile Safari/537.36":                      "Chrome on Android",
		"serval 1.2 on ana-laptop":                      "serval 1.2 on ana-laptop",
		"curl/8.5.0":                                    "curl/8.5.0",
		"Mozilla/5.0 (Plan 9) Mothra/1.0":               "Mozilla/5.0 (Plan 9) Mothra/1.0",
		"Evil Chrome/1 on Windows, which is no Mozilla": "Evil Chrome/1 on Windows, which is no Mozilla",
		"": "",
	} {
		if got := agent(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
