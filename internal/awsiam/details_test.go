package awsiam_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const details = "GetAccountAuthorizationDetails"

// allowDetails lets the account's ingestion role have the details.
func allowDetails(owner *awstest.Account) {
	owner.SetInline("serval-ingest", "more", allow("iam:"+details))
}

// bothWays runs f twice with the same small account: with the seven actions alone, and with the details allowed.
func bothWays(t *testing.T, f func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account)) {
	t.Helper()
	for _, way := range []string{serval.ByRoles, serval.ByAuthorizationDetails} {
		t.Run(way, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				if way == serval.ByAuthorizationDetails {
					allowDetails(owner)
				}
				f(t, e, owner, a)
			})
		})
	}
}

// withoutWay is the inventory as text without the times and the way it was read.
func withoutWay(t testing.TB, inv serval.Inventory) string {
	t.Helper()
	inv.ReadBy = ""
	return asText(t, inv)
}

// randomEstate fills the account with roles of every kind there is.
func randomEstate(t testing.TB, rnd *rand.Rand, e *estate, owner *awstest.Account) (known []string) {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	text := func() string {
		return pick("plain", "a+b %41 %2520", "tab\tand <b>&amp; 'quotes'", "Grüße, ñandú", "\u00ff ~ \u00a1", strings.Repeat("long ", 150), "x\r\ny")
	}
	document := func() string {
		return fmt.Sprintf(`{"Version":"2012-10-17","Id":%s,"Statement":[{"Sid":"s%d","Effect":"%s","Action":"s3:*","Resource":"arn:aws:s3:::b%d/*"}]}%s`,
			mustJSON(t, text()), rnd.IntN(1000), pick("Allow", "Deny"), rnd.IntN(50), strings.Repeat(pick(" ", "\n", "\t"), rnd.IntN(20)))
	}
	path := func() string {
		return pick("/", "/", "/team/", "/a/b/c/", "/aws-service-role/x.amazonaws.com/", "/!~-_=+,.@/")
	}
	var pool []string
	for i := range 8 {
		pool = append(pool, e.PutAWSPolicy(fmt.Sprintf("Made%d", i), document()))
		name := fmt.Sprintf("own%d", i)
		pool = append(pool, owner.PutPolicy(awstest.Policy{Name: name, Path: path(), Document: document()}))
		for range rnd.IntN(7) { // older versions, of which AWS keeps four
			owner.PutPolicy(awstest.Policy{Name: name, Path: pathOf(pool[len(pool)-1]), Document: document()})
		}
	}
	pool = append(pool, "arn:aws:iam::"+spoke+":policy/deleted", "arn:aws:iam::aws:policy/Retired", "arn:aws:iam::aws:policy/ReadOnlyAccess")
	for i := range 120 {
		r := awstest.Role{
			Name: pick("role", "Role", "r+=,.@-_") + fmt.Sprint(i), Path: path(), MaxSessionDuration: 3600 + rnd.Int32N(39601),
			Trust: strings.Replace(trustOf(hub, "sts:AssumeRole"), "{", "{"+pick("", " ", "\n\t"), 1),
		}
		if rnd.IntN(2) == 0 {
			r.Description = text()
		}
		if rnd.IntN(3) == 0 {
			r.PermissionsBoundary = pool[rnd.IntN(len(pool))]
		}
		if rnd.IntN(2) == 0 {
			r.LastUsed = time.Unix(1_700_000_000+rnd.Int64N(1e7), 0)
		}
		r.Tags = make(map[string]string)
		for range rnd.IntN(4) {
			r.Tags[fmt.Sprintf("%s%d", pick("team", "env", "a b", "ü:/=+-@"), rnd.IntN(9))] = pick("", "x", "a+b", "ß / = @")
		}
		switch rnd.IntN(4) {
		case 0, 1:
			r.Tags["serval"] = pick("", "true", "+")
		case 2:
			r.Tags[pick("Serval", "serval ", "SERVAL", " serval", "servals", "x-serval")] = "y"
		}
		r.Inline = make(map[string]string)
		for n := range rnd.IntN(4) {
			r.Inline[fmt.Sprintf("%s%d", pick("in", "In", "+="), n)] = document()
		}
		for _, n := range rnd.Perm(len(pool))[:rnd.IntN(6)] {
			if rnd.IntN(8) > 0 || n < 16 { // a policy that does not exist is rare
				r.Attached = append(r.Attached, pool[n])
			}
		}
		id := owner.PutRole(r)
		if rnd.IntN(3) == 0 {
			known = append(known, id)
		}
	}
	return append(known, "AROAOFSOMEBODYELSE000")
}

func pathOf(arn string) string {
	_, rest, _ := strings.Cut(arn, ":policy")
	return rest[:strings.LastIndex(rest, "/")+1]
}

// Issue 3: the same inventory, byte for byte, by both ways.
func TestBothWaysGiveTheSameBytes(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstateInMemory(t, awstest.Options{})
				owner, a := e.connect(spoke)
				known := randomEstate(t, rand.New(rand.NewPCG(seed, 7)), e, owner)
				e.ShortPages([]int{0, 1, 7, 50}[seed%4])
				allowDetails(owner) // the ingestion role is one of those that are read
				refusal := e.Inject(awstest.Fault{Action: details, Status: 403, Code: "AccessDenied", Message: "no"})
				byRoles := e.inventory(t, a, known...)
				refusal()
				byDetails := e.inventory(t, a, known...)
				if byRoles.ReadBy != serval.ByRoles || byDetails.ReadBy != serval.ByAuthorizationDetails {
					t.Errorf("read by %s and by %s", byRoles.ReadBy, byDetails.ReadBy)
				}
				if !byRoles.Complete || len(byRoles.Roles) < 40 || len(byRoles.NearMisses) < 10 || len(byRoles.Problems) < 1 || len(byRoles.Untagged) < 10 {
					t.Errorf("complete %v, %d roles, %d near misses, %d problems, %d untagged: the estate is too poor",
						byRoles.Complete, len(byRoles.Roles), len(byRoles.NearMisses), len(byRoles.Problems), len(byRoles.Untagged))
				}
				if diff := cmp.Diff(withoutWay(t, byRoles), withoutWay(t, byDetails)); diff != "" {
					t.Errorf("(-by roles +by details):\n%s", diff)
				}
				again := e.reader(t)
				for range 2 { // the second time the lists are read apart
					inv, err := again.Inventory(t.Context(), a, known, "", nil)
					if err != nil || withoutWay(t, inv) != withoutWay(t, byRoles) {
						t.Errorf("read again it differs: %v", err)
					}
				}
			})
		})
	}
}

// Documents as AWS may hold them, which the played one would not take.
func TestHostileDocumentsInDetails(t *testing.T) {
	const mark = "s3:Hostile"
	for name, text := range map[string]string{
		"big":      strings.Repeat("+ %20é", 131072/7),
		"not JSON": "Version: 2012-10-17\n\tStatement: none & <all>",
		"BOM":      "\ufeff{}",
		"plus":     "+",
		"twice":    "%2520",
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				owner.SetInline("role0", "one", allow(mark))
				owner.PutPolicy(awstest.Policy{Name: "own", Document: allow(mark)})
				e.Inject(awstest.Fault{Mutate: func(b []byte) []byte {
					return []byte(strings.ReplaceAll(string(b), strings.ReplaceAll(url.QueryEscape(allow(mark)), "+", "%20"), encode(text)))
				}})
				r := role(t, e.inventory(t, a), "role0")
				if got := r.InlinePolicies.Policies[0].Document; string(got) != text {
					t.Errorf("inline: %d characters, want %d as they were", len(got), len(text))
				}
				if got := r.ManagedPolicies.Policies[0].Document; string(got) != text {
					t.Errorf("managed: %d characters, want %d as they were", len(got), len(text))
				}
			})
		})
	}
}

// facts 11.4: AssumeRole, the pages of both lists, and two for each policy of AWS's.
func TestCallsWithDetails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		shape shape
		want  int
	}{
		{"one1000", one1000, 118},
		{"one5000", one5000, 132},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstateInMemory(t, awstest.Options{})
				owner, a := e.connect(spoke)
				tt.shape.fill(e, owner)
				allowDetails(owner)
				r := e.reader(t)
				want := tt.want
				for range 2 {
					e.ResetCalls()
					inv, err := r.Inventory(t.Context(), a, nil, "", nil)
					if err != nil || !inv.Complete || len(inv.Roles) != tt.shape.tagged || inv.ReadBy != serval.ByAuthorizationDetails || len(inv.Problems) != 0 {
						t.Fatalf("%v, complete %v, %d roles, by %s, problems %v", err, inv.Complete, len(inv.Roles), inv.ReadBy, inv.Problems)
					}
					if n := e.CountCalls(""); n > want {
						t.Errorf("%d calls, want at most %d", n, want)
					}
					want -= 2 * tt.shape.aws // AWS's own are known now
				}
			})
		})
	}
	t.Run("fifty200", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := newEstateInMemory(t, awstest.Options{})
			accounts := fifty(e, true)
			readAll(t, e.reader(t), accounts)
			if n := e.CountCalls(""); n > 270 {
				t.Errorf("%d calls, want at most 270", n)
			}
		})
	})
}

// A refusal costs one call for each account, once, and is asked about again after some hours, or for another role.
func TestRefusalOfDetailsIsRemembered(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		e.config.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			k := e.Account(hub).PodIdentity("worker", time.Now())
			return aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken,
				CanExpire: true, Expires: k.Expiration}, nil
		})
		r := e.reader(t)
		read := func(by string, tried int) {
			t.Helper()
			inv, err := r.Inventory(t.Context(), a, nil, "", nil)
			if err != nil || inv.ReadBy != by || !inv.Complete || len(inv.Problems) != 0 || len(inv.Roles) != 6 {
				t.Errorf("%v, by %s, complete %v, problems %v, %d roles; want all six by %s", err, inv.ReadBy, inv.Complete, inv.Problems, len(inv.Roles), by)
			}
			if n := e.CountCalls(details); n != tried {
				t.Errorf("tried %d times, want %d", n, tried)
			}
		}
		read(serval.ByRoles, 1)
		read(serval.ByRoles, 1)
		allowDetails(owner)
		time.Sleep(11 * time.Hour)
		read(serval.ByRoles, 1)
		time.Sleep(2 * time.Hour)
		read(serval.ByAuthorizationDetails, 2)
		owner.SetInline("serval-ingest", "more", "")
		read(serval.ByRoles, 3)
		owner.PutRole(awstest.Role{Name: "serval-other", Trust: trust(hub, external, "sts:AssumeRole", "sts:TagSession"),
			Inline: map[string]string{"read": allow(append(serval.IngestionActions(), "iam:"+details)...)}})
		a.RoleARN = owner.RoleARN("serval-other")
		read(serval.ByAuthorizationDetails, 4)
	})
}

// Whatever becomes of the details, the account is read to the end, and what went wrong is said.
func TestDetailsThatAreNotWhole(t *testing.T) {
	const head, foot = `<GetAccountAuthorizationDetailsResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">`, `</GetAccountAuthorizationDetailsResponse>`
	without := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte {
			before, rest, _ := strings.Cut(string(b), from)
			_, after, _ := strings.Cut(rest, to)
			return []byte(before + after)
		}
	}
	for _, tt := range []struct {
		name  string
		fault awstest.Fault
		code  string // of the one problem
		tries int
	}{
		{"nothing", awstest.Fault{Status: 200}, "EmptyAnswer", 3},
		{"no result", awstest.Fault{Status: 200, Body: head + foot}, "MalformedAnswer", 3},
		{"empty result", awstest.Fault{Status: 200, Body: head + "<GetAccountAuthorizationDetailsResult></GetAccountAuthorizationDetailsResult>" + foot}, "EmptyAnswer", 3},
		{"captive portal", awstest.Fault{Status: 200, Body: "<html><body>Sign in</body></html>", ContentType: "text/html"}, "MalformedAnswer", 3},
		{"cut off", awstest.Fault{Mutate: func(b []byte) []byte { return b[:len(b)/2] }}, "MalformedAnswer", 3},
		{"no roles element", awstest.Fault{Mutate: without("<RoleDetailList>", "</RoleDetailList>")}, "EmptyAnswer", 3},
		{"no marker", awstest.Fault{Mutate: without("<Marker>", "</Marker>")}, "EndlessList", 1},
		{"same page again", awstest.Fault{Match: func(r *awstest.Request) bool { r.Params.Del("Marker"); return false }}, "EndlessList", 2},
		{"the second page fails", awstest.Fault{After: 1, Status: 500, Code: "ServiceFailure", Message: "try later"}, "ServiceFailure", 11},
		{"the second page is empty", awstest.Fault{After: 1, Status: 200}, "EmptyAnswer", 4},
		{"the second page is denied", awstest.Fault{After: 1, Status: 403, Code: "AccessDenied"}, "", 2},
		{"never answered", awstest.Fault{Hang: true}, "Timeout", 3},
		{"throttled for good", awstest.Fault{Status: 400, Code: "Throttling"}, "Throttling", 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				e.ShortPages(3)
				want := withoutWay(t, e.inventory(t, a))
				e.ResetCalls()
				allowDetails(owner)
				tt.fault.Action = details
				e.Inject(tt.fault)
				inv := e.inventory(t, a)
				code := ""
				if len(inv.Problems) == 1 && inv.Problems[0].Action == "iam:"+details {
					code = inv.Problems[0].Code
				}
				if code != tt.code || tt.code == "" && len(inv.Problems) > 0 || inv.ReadBy != serval.ByRoles || !inv.Complete {
					t.Errorf("complete %v, by %s, problems %v; want a complete one by roles, and %q said", inv.Complete, inv.ReadBy, inv.Problems, tt.code)
				}
				if n := e.CountCalls(details); n != tt.tries {
					t.Errorf("tried %d times, want %d", n, tt.tries)
				}
				inv.Problems = []serval.Problem{}
				if diff := cmp.Diff(want, withoutWay(t, inv)); diff != "" {
					t.Errorf("(-without the details +with them broken):\n%s", diff)
				}
			})
		})
	}
}

// ListRoles says which roles there are; GetRole has the last word where the two lists differ.
func TestDetailsThatDiffer(t *testing.T) {
	strip := func(element, role string) func(*estate, *awstest.Account) {
		return func(e *estate, _ *awstest.Account) {
			e.Inject(awstest.Fault{Action: details, Mutate: func(b []byte) []byte {
				at := strings.Index(string(b), "<RoleName>"+role+"<")
				before, rest, _ := strings.Cut(string(b[at:]), "<"+element+">")
				_, after, _ := strings.Cut(rest, "</"+element+">")
				return []byte(string(b[:at]) + before + after)
			}})
		}
	}
	meanwhile := func(f func(owner *awstest.Account)) func(*estate, *awstest.Account) {
		return func(e *estate, owner *awstest.Account) {
			e.Inject(awstest.Fault{Action: details, Delay: time.Second})
			e.Inject(awstest.Fault{Action: details, Hook: func(*awstest.Request) { f(owner) }})
		}
	}
	tagged := awstest.Role{Name: "role2", Tags: map[string]string{"serval": "new"}}
	for _, tt := range []struct {
		name  string
		mess  func(*estate, *awstest.Account)
		roles int
		asked int // GetRole
		last  string
	}{
		{"nothing", func(*estate, *awstest.Account) {}, 6, 0, "yes"},
		{"deleted since it was listed", meanwhile(func(o *awstest.Account) { o.DeleteRole("role2") }), 5, 1, ""},
		{"made since", meanwhile(func(o *awstest.Account) { o.PutRole(awstest.Role{Name: "new", Tags: tagged.Tags}) }), 7, 1, "yes"},
		{"made since, untagged", meanwhile(func(o *awstest.Account) { o.PutRole(awstest.Role{Name: "new"}) }), 6, 0, "yes"},
		{"made anew", meanwhile(func(o *awstest.Account) { o.DeleteRole("role2"); o.PutRole(tagged) }), 6, 1, "new"},
		{"untagged", meanwhile(func(o *awstest.Account) { o.UntagRole("role2", "serval") }), 5, 1, ""},
		{"untagged, but only in the details", func(e *estate, _ *awstest.Account) {
			e.Inject(awstest.Fault{Action: details, Mutate: func(b []byte) []byte {
				return []byte(strings.ReplaceAll(string(b), "<Key>serval</Key>", "<Key>service</Key>"))
			}})
		}, 1, 1, "yes"}, // what the upstream does not know is not asked about
		{"without tags", strip("Tags", "role2"), 6, 1, "yes"},
		{"without inline policies", strip("RolePolicyList", "role2"), 6, 1, "yes"},
		{"without managed policies", strip("AttachedManagedPolicies", "role2"), 6, 1, "yes"},
		{"without an id", strip("RoleId", "role2"), 6, 1, "yes"},
		{"without a document", strip("PolicyDocument", "role2"), 6, 1, "yes"},
		{"a policy without versions", strip("PolicyVersionList", "role5"), 6, 0, "yes"},
		{"one role twice", func(e *estate, _ *awstest.Account) {
			e.Inject(awstest.Fault{Action: details, Mutate: func(b []byte) []byte {
				from, to := strings.Index(string(b), "<RoleDetailList>"), strings.Index(string(b), "<Policies>")
				list := strings.ReplaceAll(string(b[from:to]), "<RoleName>role2<", "<RoleName>gone<")
				return []byte(string(b[:to]) + list + string(b[to:]))
			}})
		}, 6, 7, "yes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				allowDetails(owner)
				known := owner.RoleID("role2")
				tt.mess(e, owner)
				inv := e.inventory(t, a, known)
				if !inv.Complete || len(inv.Roles) != tt.roles || inv.ReadBy != serval.ByAuthorizationDetails || len(inv.Unreadable)+len(inv.Problems) != 0 {
					t.Errorf("complete %v, by %s, roles %v, unreadable %v, problems %v; want %d roles", inv.Complete, inv.ReadBy, names(inv), inv.Unreadable, inv.Problems, tt.roles)
				}
				if n := e.CountCalls("GetRole"); n != tt.asked {
					t.Errorf("%d roles asked for one by one, want %d", n, tt.asked)
				}
				last := ""
				for _, r := range inv.Roles {
					if r.Name == "role2" {
						last = r.Tags["serval"]
						if last == "yes" && (len(r.InlinePolicies.Policies) != 2 || len(r.ManagedPolicies.Policies) != 2 || r.ManagedPolicies.Policies[0].Document == "" || !r.PoliciesComplete()) {
							t.Errorf("role2 is %+v, want all of its policies", r)
						}
					}
				}
				if last != tt.last {
					t.Errorf("role2 has the tag %q, want %q", last, tt.last)
				}
				if untagged := len(inv.Untagged) == 1; untagged != (tt.name == "untagged") {
					t.Errorf("untagged %v", inv.Untagged)
				}
			})
		})
	}
}

// the details take no listing's place.
func TestDetailsWithoutListing(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		owner.SetInline("serval-ingest", "read", allow("iam:GetRole", "iam:GetPolicy", "iam:GetPolicyVersion"))
		allowDetails(owner)
		_, err := e.reader(t).Inventory(t.Context(), a, nil, "", nil)
		if f := failureOf(t, err); f.Text != serval.TextNoListRoles {
			t.Errorf("%v, want the text of a missing iam:ListRoles", f)
		}
	})
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		allowDetails(owner)
		e.ShortPages(3)
		e.Inject(awstest.Fault{Action: "ListRoles", After: 1, Status: 500, Code: "ServiceFailure"})
		inv := e.inventory(t, a)
		if inv.Complete || len(inv.Roles) != 6 || len(inv.Problems) != 1 {
			t.Errorf("complete %v, roles %v, problems %v; want all six in an incomplete inventory", inv.Complete, names(inv), inv.Problems)
		}
	})
}

// Accounts that are read at once share in fetching AWS's policies, so that none pays for all of them from its own
// bucket, and none waits for what another is fetching while there is something else to fetch.
func TestAccountsShareInAWSPolicies(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, _ serval.Account) {
		const many, policies = 16, 64
		e.config.Total = many
		var accounts []serval.Account
		for i := range many {
			owner, a := e.connect(fmt.Sprintf("5555%08d", i))
			allowDetails(owner)
			shape{roles: 40, tagged: 32, attached: 2, aws: policies}.fill(e, owner)
			accounts = append(accounts, a)
		}
		e.SetLatency(func() time.Duration { return 40 * time.Millisecond })
		start := time.Now()
		readAll(t, e.reader(t), accounts)
		took := time.Since(start)
		asked := make(map[string]int)
		for _, c := range e.Calls() {
			if c.Action == "GetPolicyVersion" {
				asked[c.Account]++
			}
		}
		for account, n := range asked {
			if n > 2*policies/many {
				t.Errorf("account %s was asked for %d of %d policies, want some %d", account, n, policies, policies/many)
			}
		}
		// AssumeRole, the lists, and each account's part of the policies one after the other.
		if most := 40 * time.Millisecond * (2 + 2*2*policies/many); len(asked) != many || took > most {
			t.Errorf("%d accounts were asked and it took %s, want %d and at most %s", len(asked), took, many, most)
		}
	})
}

// A quarter of what may be in flight is kept back until AWS has answered for a while; not where the details leave few
// calls to make.
func TestKeptBackAtFirst(t *testing.T) {
	for _, tt := range []struct {
		details bool
		most    int
	}{{false, 12}, {true, 16}} {
		synctest.Test(t, func(t *testing.T) {
			e := newEstateInMemory(t, awstest.Options{})
			owner, a := e.connect(spoke)
			shape{roles: 40, tagged: 25, attached: 1, aws: 25}.fill(e, owner)
			if tt.details {
				allowDetails(owner)
			}
			var mu sync.Mutex
			answers, most := 0, 0
			e.config.Observe = func(awsiam.Call) {
				mu.Lock()
				defer mu.Unlock()
				if answers++; answers == 55 {
					most = e.MaxInFlight(spoke)
				}
			}
			e.SetLatency(func() time.Duration { return 40 * time.Millisecond })
			readAll(t, e.reader(t), []serval.Account{a})
			if most == 0 {
				most = e.MaxInFlight(spoke)
			}
			if most != tt.most {
				t.Errorf("details %v: %d calls in flight, want %d", tt.details, most, tt.most)
			}
		})
	}
}
