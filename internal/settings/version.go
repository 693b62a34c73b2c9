package settings

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// Version says which build this program is, and of which Go: as what it was stamped
// when it was linked, or the module's version, with the commit where it was built
// from a checkout. Its first word is the version alone.
func Version(stamped string) string {
	if stamped != "" {
		return stamped + " " + runtime.Version()
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := cmp.Or(info.Main.Version, "(devel)")
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += " " + s.Value
		}
	}
	return text + " " + info.GoVersion
}
