package signin

import "testing"

func TestFoldTyped(t *testing.T) {
	for text, want := range map[string]string{
		"BCDFGHJK": "BCDFGHJK", "bcdf-ghjk": "BCDFGHJK", " b c d f – ": "", " bcdf ghjk ": "BCDFGHJK", "BCDFGHJ": "", "BCDFGHJKL": "", "": "", "ABCDFGHJ": "", "BCDF-GHJ1": "", "BCDF_GHJK": "",
		"bcdfghj\u212a": "", // the Kelvin sign
	} {
		if got := foldTyped(text); got != want {
			t.Errorf("foldTyped(%q) is %q, want %q", text, got, want)
		}
	}
}
