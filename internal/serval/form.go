package serval

import "regexp"

// A form is what a text may be: so many bytes that fit a pattern. A pattern that
// counted them itself would be a program of as many steps, in memory from the start
// of every program of ours whether or not it ever meets such a text.
type form struct {
	pattern     *regexp.Regexp
	least, most int
}

func formOf(pattern string, least, most int) form {
	return form{regexp.MustCompile(pattern), least, most}
}

// fits reports whether text is of the form.
func (f form) fits(text string) bool {
	return f.least <= len(text) && len(text) <= f.most && f.pattern.MatchString(text)
}
