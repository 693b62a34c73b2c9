// Package settings reads a program's settings: environment variables, each also
// as a flag. The struct they are read into is the manual; its fields carry the
// variable's name (env), its default (envDefault) and what it means (usage).
//
// The word by which the manual calls a setting's absence (absent) may be given as
// its value: off, or none. What is on or off may be given so too.
//
// A secret is never a flag. Every variable NAME can be given as NAME_FILE, a
// file whose text is the value, without one trailing newline. All faults are
// found at once.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/pflag"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Prefix begins the name of every variable of Serval's.
const Prefix = "SERVAL_"

// others are the variables that some program of Serval's knows: one pod's
// environment may hold another program's.
var others = []string{
	"SERVAL_ADMIN_LISTEN",
	"SERVAL_BASE_ROLE_ARN",
	"SERVAL_BLOCK_FINDINGS",
	"SERVAL_BRIDGE_URL",
	"SERVAL_CLIENT_DIR",
	"SERVAL_CONFIG",
	"SERVAL_DATABASE_URL",
	"SERVAL_DELTA_BUDGET",
	"SERVAL_DELTA_INTERVAL",
	"SERVAL_DEMO_DATABASE_URL",
	"SERVAL_DEMO_LISTEN",
	"SERVAL_DEVICE_LOGIN",
	"SERVAL_DRAIN_DELAY",
	"SERVAL_EGRESS_CIDRS",
	"SERVAL_EXTERNAL_ID",
	"SERVAL_EXTERNAL_ID_SECRET",
	"SERVAL_IAM_ENDPOINT",
	"SERVAL_KEYCHAIN",
	"SERVAL_LEASE_MINUTES",
	"SERVAL_LISTEN",
	"SERVAL_LOG_LEVEL",
	"SERVAL_MINT_RATE",
	"SERVAL_NO_INPUT",
	"SERVAL_NO_LEASE",
	"SERVAL_OIDC_CLIENT_ID",
	"SERVAL_OIDC_CLIENT_SECRET",
	"SERVAL_OIDC_EMAIL_CLAIM",
	"SERVAL_OIDC_EMAIL_VERIFIED",
	"SERVAL_OIDC_GROUPS_CLAIM",
	"SERVAL_OIDC_HOSTS",
	"SERVAL_OIDC_ISSUER",
	"SERVAL_OIDC_MAX_AGE",
	"SERVAL_OIDC_OFFLINE",
	"SERVAL_OIDC_REQUIRED_AMR",
	"SERVAL_OIDC_SCOPES",
	"SERVAL_ORGANIZATIONS_ENDPOINT",
	"SERVAL_PARALLEL_ACCOUNTS",
	"SERVAL_PUBLIC_URL",
	"SERVAL_REQUEST_EXPIRY",
	"SERVAL_SECRET",
	"SERVAL_SERVICE_ACCOUNT_DIR",
	"SERVAL_SESSION_POLICY",
	"SERVAL_SHARD",
	"SERVAL_SIGNIN_ENDPOINT",
	"SERVAL_SLACK_API_URL",
	"SERVAL_SLACK_APP_TOKEN",
	"SERVAL_SLACK_BOT_TOKEN",
	"SERVAL_SLACK_WEBHOOK_URL",
	"SERVAL_SMTP_FROM",
	"SERVAL_SMTP_PASSWORD",
	"SERVAL_SMTP_URL",
	"SERVAL_SMTP_USERNAME",
	"SERVAL_STS_ENDPOINT",
	"SERVAL_STS_REGION",
	"SERVAL_SYNC_INTERVAL",
	"SERVAL_SYNC_OFFSET",
	"SERVAL_TLS_CERT_FILE",
	"SERVAL_TLS_KEY_FILE",
	"SERVAL_TOTAL_SHARDS",
	"SERVAL_TRUSTED_ACCOUNT",
	"SERVAL_TRUSTED_PROXIES",
	"SERVAL_UPSTREAM_CA_FILE",
	"SERVAL_UPSTREAM_PLAINTEXT",
	"SERVAL_UPSTREAM_TOKEN",
	"SERVAL_UPSTREAM_URL",
	"SERVAL_VPC_ENDPOINT",
	"SERVAL_WEBHOOK_SECRET",
	"SERVAL_WEBHOOK_URL",
	"SERVAL_WORKER_SUBJECT",
}

// injected are the variables that Kubernetes makes of the names of services.
var injected = regexp.MustCompile(`^SERVAL_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

var secretType = reflect.TypeFor[serval.Secret]()

// A field is one setting of a struct.
type field struct {
	name   string // of the variable
	goName string
	flag   string
	usage  string
	value  string // default
	absent string // the word that stands for no value
	bare   string // the unit of a number that has none
	secret bool
	isBool bool
}

// fields returns the settings of the struct that into points to.
func fields(into any) []field {
	var list []field
	for f := range reflect.TypeOf(into).Elem().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		if name == "" {
			continue
		}
		list = append(list, field{
			name: name, goName: f.Name, usage: f.Tag.Get("usage"), value: f.Tag.Get("envDefault"), absent: f.Tag.Get("absent"), bare: f.Tag.Get("bare"),
			flag:   strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, Prefix)), "_", "-"),
			secret: f.Type == secretType, isBool: f.Type.Kind() == reflect.Bool,
		})
	}
	return list
}

// Flags adds a flag to flags for every setting of the struct that into points
// to. Secrets get one for their file.
func Flags(flags *pflag.FlagSet, into any) {
	for _, f := range fields(into) {
		usage := f.usage + " (" + f.name + ")"
		switch {
		case f.secret:
			flags.String(f.flag+"-file", "", "file that holds: "+usage)
		case f.isBool:
			flags.String(f.flag, f.value, usage)
			flags.Lookup(f.flag).NoOptDefVal = "true"
		default:
			flags.String(f.flag, f.value, usage)
		}
	}
}

// Read fills the struct that into points to from environ (NAME=value each) and
// from the flags that were given, which win. It returns every fault, each a
// sentence that begins with the variable's name.
func Read(into any, environ []string, flags *pflag.FlagSet) (faults []string) {
	given := variables(environ)
	list := fields(into)
	faults = append(faults, unknown(given, list)...)
	values := make(map[string]string)
	named := make(map[string]bool) // with a fault that says more than "required"
	for _, f := range list {
		value, fault := f.find(given, flags)
		switch {
		case f.absent != "" && value == f.absent:
			value = ""
		case f.bare != "" && value != "" && strings.Trim(value, "0") == "":
			// To OpenID Connect a max_age of 0 is a sign-in each time; here it would ask for none.
			fault = f.name + ": 0 is not taken; " + f.absent + " is how none is said."
		case f.bare != "" && value != "" && strings.Trim(value, "0123456789") == "":
			value += f.bare
		case f.isBool && value == "on":
			value = "true"
		case f.isBool && value == "off":
			value = "false"
		}
		if fault == "" && isPlaceholder(value) {
			fault = f.name + ": holds a placeholder; put the real value there."
		}
		switch {
		case fault != "":
			faults = append(faults, fault)
			named[f.name+": required."] = true
		case value != "":
			values[f.name] = value
		}
	}
	if err := env.ParseWithOptions(into, env.Options{Environment: values}); err != nil {
		for _, fault := range explain(err, list) {
			if !named[fault] {
				faults = append(faults, fault)
			}
		}
	}
	slices.Sort(faults)
	return faults
}

// variables returns those of environ (NAME=value each) that are Serval's.
func variables(environ []string) map[string]string {
	given := make(map[string]string)
	for _, text := range environ {
		if name, value, ok := strings.Cut(text, "="); ok && strings.HasPrefix(name, Prefix) {
			given[name] = value
		}
	}
	return given
}

// byFlag returns the flag that gives the file of a secret, where it was given.
func (f field) byFlag(flags *pflag.FlagSet) *pflag.Flag {
	if flags == nil || !f.secret {
		return nil
	}
	if g := flags.Lookup(f.flag + "-file"); g != nil && g.Changed {
		return g
	}
	return nil
}

// file returns the file that f's value is to be read from; empty where from none.
func (f field) file(given map[string]string, flags *pflag.FlagSet) string {
	switch g := f.byFlag(flags); {
	case g != nil:
		return g.Value.String()
	case strings.HasSuffix(f.name, "_FILE"):
		return "" // the setting is itself a path
	default:
		return given[f.name+"_FILE"]
	}
}

// find returns the value that was given for f.
func (f field) find(given map[string]string, flags *pflag.FlagSet) (value, fault string) {
	if flags != nil {
		if g := flags.Lookup(f.flag); g != nil && g.Changed {
			return g.Value.String(), ""
		}
	}
	value, path := given[f.name], f.file(given, flags)
	switch {
	case value != "" && path != "" && f.byFlag(flags) == nil:
		return "", f.name + ": given both itself and as " + f.name + "_FILE; leave one of them out."
	case path != "":
		text, err := os.ReadFile(path)
		if err != nil {
			// The error's text would repeat the path, which may be the secret itself.
			return "", fmt.Sprintf("%s_FILE: the file cannot be read: %s.", f.name, reason(err))
		}
		return trimNewline(string(text)), ""
	default:
		return value, ""
	}
}

// trimNewline takes one trailing newline off.
func trimNewline(text string) string {
	if cut, ok := strings.CutSuffix(text, "\r\n"); ok {
		return cut
	}
	return strings.TrimSuffix(text, "\n")
}

func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return "it is not readable"
}

// placeholder is what examples hold where a value should be.
var placeholder = regexp.MustCompile(`(?i)^(<[^>]*>|change-?me|replace-?me|todo|x{3,}|your[-_ ].*)$`)

func isPlaceholder(value string) bool { return placeholder.MatchString(strings.TrimSpace(value)) }

// unknown names the variables that no program of Serval's knows.
func unknown(given map[string]string, list []field) (faults []string) {
	known := make(map[string]bool)
	for _, name := range others {
		known[name], known[name+"_FILE"] = true, true
	}
	for _, f := range list {
		known[f.name], known[f.name+"_FILE"] = true, true
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if known[name] || injected.MatchString(name) {
			continue
		}
		fault := name + ": no such setting"
		if near := nearest(name, known); near != "" {
			fault += "; " + near + " may be meant"
		}
		faults = append(faults, fault+".")
	}
	return faults
}

// nearest returns the known name that takes the fewest changes to reach, within
// three.
func nearest(name string, known map[string]bool) string {
	best, least := "", 4
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short texts.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// explain turns the parser's errors into faults that name the variable and not
// its value, which may be a secret.
func explain(err error, list []field) (faults []string) {
	all := []error{err}
	if several, ok := errors.AsType[env.AggregateError](err); ok {
		all = several.Errors
	}
	for _, err := range all {
		switch e := err.(type) {
		case env.VarIsNotSetError:
			faults = append(faults, e.Key+": required.")
		case env.EmptyVarError:
			faults = append(faults, e.Key+": required.")
		case env.ParseError:
			faults = append(faults, variable(e.Name, list)+": not "+describe(e.Type)+".")
		default:
			faults = append(faults, err.Error())
		}
	}
	return faults
}

// variable returns the variable behind a struct field.
func variable(goName string, list []field) string {
	for _, f := range list {
		if f.goName == goName {
			return f.name
		}
	}
	return goName
}

func describe(t reflect.Type) string {
	switch t.String() {
	case "time.Duration":
		return "a duration such as 30s, 5m or 4h"
	case "bool":
		return "true or false, on or off"
	case "int":
		return "a whole number"
	default:
		return "a " + t.String()
	}
}
