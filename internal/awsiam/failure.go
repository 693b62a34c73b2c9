package awsiam

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Stage says how far a reading came.
type Stage string

// The stages, in order.
const (
	StageCredentials Stage = "credentials" // who the worker itself is
	StageAssume      Stage = "assume"      // a role on the way to the account
	StageList        Stage = "list"        // the account's roles
)

// A Failure says why nothing could be read of an account.
type Failure struct {
	Check  Stage
	Action string // the action that failed, such as sts:AssumeRole
	Target string // the ARN it was about; may be empty
	// Code is AWS's, or one of Timeout, NoConnection, NoCredentials, EmptyAnswer,
	// MalformedAnswer, WrongAccount, BadCertificate, NoTLS, and HTTP with a status.
	Code    string
	Message string // AWS's words
	Text    string // the sentence of the health check
	Cause   string // which of the known causes it is, and what mends it
	Causes  []serval.Cause
	// Skew is how far AWS's clock is ahead of ours, where that is too far.
	Skew time.Duration

	err error
}

// Error returns what failed, with the text and the cause.
func (f *Failure) Error() string {
	if f.Cause == "" {
		return f.Text
	}
	return f.Text + " " + f.Cause
}

// Unwrap returns the error of the call.
func (f *Failure) Unwrap() error { return f.err }

// failure explains what went wrong with the account. The context's own errors
// stay what they are.
func (r *Reader) failure(stage Stage, a serval.Account, err error) error {
	e, ok := errors.AsType[*callError](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("reading account %s: not done in %s: %w", a.ID, accountDeadline, err)
		}
		return fmt.Errorf("reading account %s: %w", a.ID, err)
	}
	f := &Failure{
		Check: stage, Action: e.action, Target: e.target, Code: e.code, Message: e.message, err: err,
		Text: serval.TextNotAssumed,
	}
	f.Cause, f.Causes = r.cause(e, a)
	if e.code == codeNone {
		f.Check = StageCredentials
	}
	if stage == StageList {
		switch {
		case e.action != listRoles: // the session could not be renewed
			f.Check = StageAssume
		case e.kind == denied:
			f.Text = serval.TextNoListRoles
		case e.code == codeWrongAccount:
			f.Text = serval.TextListedOther
		default:
			f.Text = serval.TextListFailed
		}
	}
	if skew := r.Skew(); skew.Abs() > skewAlarm {
		f.Skew = skew
		f.Cause += " " + clockOff(skew)
		if e.kind == skewed {
			f.Causes = nil // the others were guesses
		}
		f.Causes = append([]serval.Cause{serval.CauseClockSkew}, f.Causes...)
	}
	f.Cause = strings.TrimSpace(f.Cause)
	return f
}

func clockOff(skew time.Duration) string {
	side := "behind"
	if skew < 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("The clock here is %s %s that of AWS, which refuses signatures more than five minutes off: set the clock of the node.", skew.Abs(), side)
}

// cause explains an error of AWS's in the words of the one who must mend it, and
// says which of the known causes it can be.
func (r *Reader) cause(e *callError, a serval.Account) (text string, causes []serval.Cause) {
	said := fmt.Sprintf("%s answered %s: %s", e.action, e.code, e.message)
	if !strings.HasSuffix(said, ".") {
		said += "."
	}
	worker := "the worker's own role"
	if len(a.Via) > 0 {
		worker = "the role that assumes it"
	}
	if caller := caller(e.message); caller != "" {
		worker += " (" + caller + ")"
	}
	is := func(c ...serval.Cause) []serval.Cause { return c }
	switch {
	case e.code == codeNone:
		causes = is(serval.CauseNoCredentials)
		if r.source.name == sourceMetadata {
			causes = is(serval.CauseNoCredentials, serval.CauseMetadataHopLimit)
		}
		return fmt.Sprintf("The worker has no AWS credentials. They are to come from %s (%s): %s. %s", r.source.name, r.source.why, strings.TrimSuffix(e.message, "."), r.source.mend), causes
	case e.code == codeCertificate:
		return said + " " + whyNotTrusted(e), is(serval.CauseTLS)
	case e.code == codeTLS:
		return said + " What answers there is reached and does not speak TLS as AWS does: look at the account's STS endpoint, dial and proxy, and at what stands between here and AWS.", is(serval.CauseTLS)
	case e.code == codeConnection || e.code == codeTimeout:
		return said + " The endpoint cannot be reached: allow egress to it on port 443, and set the account's STS region, endpoint, dial or proxy where the way is another.", is(serval.CauseEgress)
	case e.code == codeEmpty || e.code == codeMalformed:
		return said + " Something between here and AWS answers in its place, such as a proxy or a captive portal.", is(serval.CauseIntercepted)
	case e.code == codeWrongAccount:
		return said + " The role ARN, the endpoint or the way to it is wrong.", is(serval.CauseWrongAccount)
	case e.code == codeExternalIDOpen:
		return e.message, is(serval.CauseExternalIDOpen)
	case e.kind == throttled:
		return said + " The account's own programs and this one share AWS's limits; it is tried again at the next sync.", is(serval.CauseThrottled)
	case e.kind == denied && e.action == assumeRole:
		why, causes := whyNotAssumed(e, worker, a)
		return said + " " + why, causes
	case e.kind == denied:
		return fmt.Sprintf("%s Allow %s in the permissions of %s.", said, e.action, a.RoleARN), is(serval.CauseActionsDenied)
	case e.code == "RegionDisabledException":
		return said + " STS is turned off in the region " + r.stsRegion(a) + ": turn it on in that account's settings, or choose another STS region.", is(serval.CauseRegionDisabled)
	case e.code == "PackedPolicyTooLarge":
		return said + " The session tags of EKS Pod Identity take up most of the room: turn them off with disableSessionTags on the worker's Pod Identity association.", is(serval.CausePackedPolicy)
	case e.code == "InvalidClientTokenId" || e.code == "UnrecognizedClientException":
		return said + " AWS does not know the worker's access key: it was deleted, belongs to another partition, or its session token is missing.", is(serval.CauseWrongKey)
	case e.kind == expired:
		return said + " The worker's own credentials have ended and no new ones came.", is(serval.CauseExpired)
	}
	return said, is(serval.CauseOther)
}

// whyNotTrusted tells what is wrong with a certificate, and what mends it.
func whyNotTrusted(e *callError) string {
	if _, ok := errors.AsType[x509.HostnameError](e.cause); ok {
		return "The connection leads to a server of another name. The endpoint must be the one that the certificate is for: where dial leads to a load balancer in front of the global STS, " +
			"set the account's STS endpoint to https://sts.amazonaws.com; where it leads to a regional one, to that region's."
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](e.cause); ok {
		return "Nobody who is trusted here has signed it. Where a proxy on the way opens TLS, give its certificate to the worker in the file that AWS_CA_BUNDLE names; else do not trust it."
	}
	return "Look at how long it is valid, and at the clock here."
}

// whyNotAssumed tells the causes apart as far as AWS's words do.
func whyNotAssumed(e *callError, worker string, a serval.Account) (text string, causes []serval.Cause) {
	role := e.target
	is := func(c ...serval.Cause) []serval.Cause { return c }
	byWorker := strings.Contains(e.message, "no identity-based policy allows")
	switch {
	case strings.Contains(e.message, "sts:TagSession"):
		return fmt.Sprintf("The worker's session carries session tags: EKS Pod Identity attaches six, and they go along with every further AssumeRole. "+
			"So sts:TagSession must be allowed beside sts:AssumeRole in two places: in the trust policy of %s, and in the policy of %s for that role. "+
			"Or turn the tags off with disableSessionTags on the Pod Identity association.", role, worker), tagSession(byWorker)
	case strings.Contains(e.message, "sts:SetSourceIdentity"):
		return fmt.Sprintf("The worker's session carries a source identity. So sts:SetSourceIdentity must be allowed beside sts:AssumeRole "+
			"in the trust policy of %s, and in the policy of %s for that role.", role, worker), is(serval.CauseSourceIdentity)
	case strings.Contains(e.message, "explicit deny"):
		return "A policy denies it explicitly; what the others allow does not matter then.", is(serval.CauseExplicitDeny)
	case byWorker:
		return fmt.Sprintf("The policy of %s does not allow sts:AssumeRole on %s.", worker, role), is(serval.CauseWorkerPolicy)
	}
	external := "the External ID in its trust policy is another than the one of this connection"
	if role == a.RoleARN && a.ExternalID == "" || role != a.RoleARN {
		external = "its trust policy asks for an External ID that is not sent"
	}
	return fmt.Sprintf("AWS does not say which it is: the role %s does not exist, its trust policy does not name the account of %s, %s, or that role's own policy does not allow sts:AssumeRole on it.",
		role, worker, external), is(serval.CauseNoRole, serval.CauseTrustedAccount, serval.CauseExternalID, serval.CauseWorkerPolicy)
}

// tagSession says where sts:TagSession is missing. AWS judges the caller's side
// last: where it names the caller's policy the trust policy is right, and where it
// names nothing the trust policy is wrong and the caller's may be too.
func tagSession(byWorker bool) []serval.Cause {
	if byWorker {
		return []serval.Cause{serval.CauseTagSessionWorker}
	}
	return []serval.Cause{serval.CauseTagSessionTrust, serval.CauseTagSessionWorker}
}

// caller returns the ARN that AWS's words "User: … is not authorized" name.
func caller(message string) string {
	_, rest, ok := strings.Cut(message, "User: ")
	arn, _, found := strings.Cut(rest, " ")
	if !ok || !found || !strings.HasPrefix(arn, "arn:") {
		return ""
	}
	return arn
}
