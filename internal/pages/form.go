package pages

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// minutes reads a number of minutes from a form; empty is 0.
func minutes(text string) (int, error) {
	if text = strings.TrimSpace(text); text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, edge.Refuse(serval.Invalid, "Minutes are a whole number.")
	}
	return n, nil
}

// other is what is chosen where none of the choices is.
const other = "other"

// A lengthView is the part of a form that asks for how long: some choices, and any
// other number.
type lengthView struct {
	Choices []choice
	Chosen  string // one of the choices, other, or nothing
	Other   string
	Max     int
}

// A choice is a number of minutes to choose.
type choice struct {
	Minutes                   int
	Recommended, Chosen, Most bool
}

// newLength offers what is up to most, and some that is recommended; 0: nothing is.
// What was entered before is chosen.
func newLength(most, recommended int, chosen, entered string) lengthView {
	l := lengthView{Choices: choices(most, recommended, chosen), Chosen: chosen, Other: entered, Max: most}
	if chosen != "" && chosen != other && !slices.ContainsFunc(l.Choices, func(c choice) bool { return c.Chosen }) {
		l.Chosen, l.Other = other, chosen
	}
	return l
}

// choices returns what is offered of the minutes up to most.
func choices(most, recommended int, chosen string) (list []choice) {
	for _, n := range []int{15, 30, 60, 120, 240, 480, 720, 1440, 2880, recommended, most} {
		if n > 0 && n <= most && !slices.ContainsFunc(list, func(c choice) bool { return c.Minutes == n }) {
			list = append(list, choice{Minutes: n, Recommended: n == recommended, Chosen: strconv.Itoa(n) == chosen, Most: n == most})
		}
	}
	slices.SortFunc(list, func(a, b choice) int { return a.Minutes - b.Minutes })
	if len(list) > 5 && list[0].Minutes == 15 && !list[0].Recommended && !list[0].Chosen {
		list = list[1:] // it is for where nothing long is to be had
	}
	for len(list) > 5 { // the longest but one is missed least
		i := len(list) - 2
		for list[i].Recommended || list[i].Chosen {
			i--
		}
		list = slices.Delete(list, i, i+1)
	}
	return list
}

// readLength reads what a lengthView asked for; 0 where nothing was chosen.
func readLength(f url.Values) (int, error) {
	if text := f.Get("minutes"); text != other {
		return minutes(text)
	}
	return minutes(f.Get("other_minutes"))
}
