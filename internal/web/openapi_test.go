package web_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/web"
)

// described reads the description of the API, and the router over it.
var described = sync.OnceValues(func() (*openapi3.T, routers.Router) {
	text, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		panic(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		panic(err)
	}
	openapi3filter.RegisterBodyDecoder("application/jsonl", openapi3filter.FileBodyDecoder)
	router, err := legacy.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	return doc, router
})

// The description names exactly the routes that there are, and their rules.
func TestDescriptionIsTheTable(t *testing.T) {
	doc, _ := described()
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			rule := "login"
			if op.Security != nil {
				rule = "public"
				if len(*op.Security) > 0 {
					rule = "worker"
				}
			}
			want = append(want, method+" /api/v1"+path+" "+rule)
		}
	}
	for _, r := range newWorld(t, devices).edge.Routes() {
		if !strings.HasPrefix(r.Pattern, "/api/") {
			continue
		}
		rule := "login"
		if r.Rule == web.Worker || r.Rule == web.Public {
			rule = string(r.Rule)
		}
		got = append(got, r.Method+" "+r.Pattern+" "+rule)
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("api/openapi.yaml (-) and the routes (+) differ:\n%s", d)
	}
}

// checkDescribed holds an answer of the API, and the request that it accepted,
// to the description.
func checkDescribed(t testing.TB, req *http.Request, body []byte, res *http.Response, answer string) {
	t.Helper()
	_, router := described()
	// The description's server is a path; where it is does not matter.
	at := *req.URL
	at.Scheme, at.Host = "", ""
	asked := &http.Request{Method: req.Method, URL: &at, Header: req.Header.Clone(), Body: io.NopCloser(bytes.NewReader(body))}
	route, params, err := router.FindRoute(asked)
	if err != nil {
		if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s %s answered %d and is not described: %v", req.Method, req.URL.Path, res.StatusCode, err)
		}
		return
	}
	input := &openapi3filter.RequestValidationInput{
		Request: asked, PathParams: params, Route: route, QueryParams: url.Values(req.URL.Query()),
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if res.StatusCode < 300 && req.Header.Get("Content-Encoding") == "" {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			t.Errorf("%s %s was taken, and is not as described: %v", req.Method, req.URL.Path, err)
		}
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: res.StatusCode, Header: res.Header, Body: io.NopCloser(strings.NewReader(answer)), Options: input.Options,
	})
	if err != nil {
		t.Errorf("%s %s answered %d, not as described: %v", req.Method, req.URL.Path, res.StatusCode, err)
	}
}
