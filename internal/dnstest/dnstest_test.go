package dnstest

import (
	"errors"
	"net"
	"strings"
	"testing"
)

func TestResolver(t *testing.T) {
	r := Resolver(t, map[string]string{"four.example.com": "192.0.2.1", "six.example.com": "2001:db8::1", "broken.example.com": "SERVFAIL"})
	for name, want := range map[string]string{"four.example.com": "192.0.2.1", "six.example.com": "2001:db8::1"} {
		if got, err := r.LookupHost(t.Context(), name); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s is at %v, %v; want %s", name, got, err, want)
		}
	}
	for name, gone := range map[string]bool{"nobody.example.com.": true, "broken.example.com.": false} { // to the letter, wherever this machine looks else
		_, err := r.LookupHost(t.Context(), name)
		if e, ok := errors.AsType[*net.DNSError](err); !ok || e.IsNotFound != gone {
			t.Errorf("%s: %v, want a DNS error, not found: %t", name, err, gone)
		}
	}
}
