package lease

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	coordination "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A dryServer answers each verb as it is told, and fails the test where something
// would be written for good.
type dryServer struct {
	t     *testing.T
	lease *coordination.Lease
	says  map[string]metav1.StatusReason // by method; none: it lets it be done
	asked []string
}

func (s *dryServer) RoundTrip(q *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, q.Method)
	if q.Method != http.MethodGet && q.URL.Query().Get("dryRun") != "All" {
		s.t.Errorf("%s %s is no dry run", q.Method, q.URL)
	}
	codes := map[metav1.StatusReason]int{metav1.StatusReasonForbidden: 403, metav1.StatusReasonUnauthorized: 401, metav1.StatusReasonAlreadyExists: 409,
		metav1.StatusReasonConflict: 409, metav1.StatusReasonNotFound: 404, metav1.StatusReasonInvalid: 422}
	if reason := s.says[q.Method]; reason != "" {
		return status(codes[reason], reason, "it says so"), nil
	}
	if q.Method == http.MethodGet && s.lease == nil {
		return status(404, metav1.StatusReasonNotFound, "not found"), nil
	}
	l := s.lease
	if l == nil {
		l = &coordination.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	}
	return reply(200, l), nil
}

func TestTry(t *testing.T) {
	holder := "the-other"
	held := &coordination.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, ResourceVersion: "7"}, Spec: coordination.LeaseSpec{HolderIdentity: &holder}}
	for _, tt := range []struct {
		name   string
		lease  *coordination.Lease
		says   map[string]metav1.StatusReason
		holder string
		want   string // in the error; none where it works
	}{
		{"there is none", nil, nil, "", ""},
		{"there is none, as a server answers that does not make what is updated", nil, map[string]metav1.StatusReason{"PUT": metav1.StatusReasonNotFound}, "", ""},
		{"another holds it", held, map[string]metav1.StatusReason{"POST": metav1.StatusReasonAlreadyExists}, holder, ""},
		{"it was written meanwhile", held, map[string]metav1.StatusReason{"POST": metav1.StatusReasonAlreadyExists, "PUT": metav1.StatusReasonConflict}, holder, ""},
		{"it may not be read", held, map[string]metav1.StatusReason{"GET": metav1.StatusReasonForbidden}, "", "may not get the Lease serval-worker-0 in the namespace serval; give it a Role"},
		{"it may not be made", nil, map[string]metav1.StatusReason{"POST": metav1.StatusReasonForbidden}, "", "may not create the Lease"},
		{"it may not be written", held, map[string]metav1.StatusReason{"POST": metav1.StatusReasonAlreadyExists, "PUT": metav1.StatusReasonForbidden}, holder, "may not update the Lease"},
		{"the token is not accepted", nil, map[string]metav1.StatusReason{"GET": metav1.StatusReasonUnauthorized}, "", "does not accept the token in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &dryServer{t: t, lease: tt.lease, says: tt.says}
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte("the-token"), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Try(t.Context(), Config{Server: "https://kubernetes.test", TokenFile: token, Namespace: namespace, Name: name, transport: s})
			switch {
			case got != tt.holder:
				t.Errorf("it is held by %q, want %q", got, tt.holder)
			case tt.want == "" && (err != nil || strings.Join(s.asked, " ") != "GET POST PUT"):
				t.Errorf("%v after %v, want it to work after reading, making and writing", err, s.asked)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}
