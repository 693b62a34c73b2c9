package catalogue

import "testing"

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b       string
		most, want int
	}{
		{"", "", 3, 0}, {"admin", "admin", 3, 0}, {"Admin", "aDMIN", 3, 0}, {"", "abc", 3, 3}, {"abc", "", 3, 3},
		{"prod-readonyl", "prod-readonly", 3, 1}, {"prod-redonly", "prod-readonly", 3, 1}, {"prod-readdonly", "prod-readonly", 3, 1},
		{"prod-readonlx", "prod-readonly", 3, 1}, {"kitten", "sitting", 3, 3}, {"kitten", "sitting", 2, 3}, {"abcdef", "uvwxyz", 2, 3}, {"a", "abcdef", 3, 4},
	} {
		if got := edits(c.a, c.b, c.most); got != c.want {
			t.Errorf("edits(%q, %q, %d) is %d, want %d", c.a, c.b, c.most, got, c.want)
		}
		if got := edits(c.b, c.a, c.most); got != c.want {
			t.Errorf("edits(%q, %q, %d) is %d, want %d", c.b, c.a, c.most, got, c.want)
		}
	}
}
