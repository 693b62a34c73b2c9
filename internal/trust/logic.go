package trust

// A truth is yes, no or unknown. It is Kleene's logic: whatever is learnt later
// can only turn an unknown into an answer, never one answer into the other.
type truth int8

const (
	no      truth = -1
	unknown truth = 0
	yes     truth = 1
)

func and(a, b truth) truth { return min(a, b) }
func or(a, b truth) truth  { return max(a, b) }
func not(a truth) truth    { return -a }

func known(b bool) truth {
	if b {
		return yes
	}
	return no
}
