package awssts

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Codes of ours, where AWS gave none.
const (
	NoAnswer  = "NoAnswer"  // none came in time, or it was cut off; the session may have been opened
	BadAnswer = "BadAnswer" // one came that is not AWS's, has no code, or lacks what it must hold
	Refused   = "Refused"   // the sign-in service said no; it has no codes
)

// An Error is a session that was asked for and not got. It holds no secret: a
// token that AWS repeats in its message is taken out of it.
//
// It unwraps to a *serval.Refusal with its Kind, its Sentence, and "code",
// "aws_request_id", where it may be tried shorter "clamp" and where AWS named an
// action "denied" as Detail, so that the edge shows it as it shows any. An error
// without a Kind is a fault of ours, and does not.
type Error struct {
	Operation string      // AssumeRoleWithWebIdentity or getSigninToken
	Code      string      // AWS's, or one of the above
	Status    int         // of the HTTP answer; 0 where there was none
	RequestID string      // AWS's, for its support
	Message   string      // AWS's own words, cut and cleaned, for the audit log
	Kind      serval.Kind // empty for a fault of ours
	Sentence  string      // what the person reads: the cause, and who can mend it
	Retried   int         // how often the call was repeated

	// Clamp reports that AWS found the session too long for the role, whose
	// maximum is not what it was: the same mint with
	// serval.DefaultMaxSessionSeconds may be tried once.
	Clamp bool
	// Reauth reports that the person has to sign in again: AWS will not take
	// this ID token any more.
	Reauth bool

	// Denied is the action that AWS named when it said AccessDenied, where that is
	// another than opening the session; empty where it named none.
	Denied string

	tries     int // how often such a call is made at most
	throttled bool
	cause     error // the context's, where that ended the call
}

// Error describes the failure for the log. People read the Sentence.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Operation, e.Code)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", HTTP status %d", e.Status)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, ", request %s", e.RequestID)
	}
	if e.Retried > 0 {
		fmt.Fprintf(&b, ", tried %d times", e.Retried+1)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %s", e.cause)
	}
	return b.String()
}

// Unwrap returns the refusal, and what ended the context where that was why.
func (e *Error) Unwrap() []error {
	var chain []error
	if e.Kind != "" {
		detail := map[string]string{"code": e.Code}
		if e.RequestID != "" {
			detail["aws_request_id"] = e.RequestID
		}
		if e.Clamp {
			detail["clamp"] = "true"
		}
		if e.Denied != "" {
			detail["denied"] = e.Denied
		}
		chain = append(chain, &serval.Refusal{Kind: e.Kind, Reason: e.Sentence, Detail: detail})
	}
	if e.cause != nil {
		chain = append(chain, e.cause)
	}
	return chain
}

// Facts returns what the audit log keeps of the failure beside its sentence:
// AWS's own words among it, which the person is not shown.
func (e *Error) Facts() map[string]string {
	facts := map[string]string{"code": e.Code, "tries": fmt.Sprint(e.Retried + 1)}
	if e.Status != 0 {
		facts["status"] = fmt.Sprint(e.Status)
	}
	if e.RequestID != "" {
		facts["request_id"] = e.RequestID
	}
	if e.Message != "" {
		facts["message"] = e.Message
	}
	return facts
}

// An asking is what failures of one mint are explained by.
type asking struct {
	mint   serval.Mint
	role   serval.RoleARN
	region string
}

// failed reads the SDK's error. Nothing of it is kept but AWS's code, status,
// request id and message, or what the network said, both cleaned: the rest may
// quote the request.
func (a asking) failed(err error) *Error {
	e := &Error{Operation: "AssumeRoleWithWebIdentity"}
	if answered, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		e.Status, e.RequestID = answered.HTTPStatusCode(), answered.ServiceRequestID()
	} else if answered, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		e.Status = answered.HTTPStatusCode()
	}
	var message string
	if refused, ok := errors.AsType[smithy.APIError](err); ok && refused.ErrorCode() != "UnknownError" {
		e.Code, message = identifier(refused.ErrorCode()), refused.ErrorMessage()
	}
	e.RequestID = identifier(e.RequestID)
	e.Message = clean(message, a.mint.Token)
	if e.Code == "" && e.Status < 500 && cutOff(err) {
		e.Status = 0
	}
	if e.Status == 0 {
		e.Message = clean(network(err), a.mint.Token)
	}
	a.explain(e)
	return e
}

// network returns what the network said, without the request it was said of.
func network(err error) string {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err.Error()
	}
	if cutOff(err) {
		return "the answer broke off"
	}
	return ""
}

// cutOff reports whether an answer broke off: the SDK has its status then, and
// no answer.
func cutOff(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	return isNet || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// incomplete is a success that brought nothing.
func (a asking) incomplete(out *sts.AssumeRoleWithWebIdentityOutput) *Error {
	e := &Error{Operation: "AssumeRoleWithWebIdentity", Status: http.StatusOK}
	if id, ok := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata); ok {
		e.RequestID = identifier(id)
	}
	a.explain(e)
	return e
}

// The sentences of what may pass by itself.
const (
	sayNoAnswer  = "AWS did not answer. Nothing was handed over; try again in a minute."
	sayFailed    = "AWS had a failure of its own. Nothing was handed over; try again in a minute."
	sayThrottled = "AWS is being asked too often at the moment. Try again in a minute."
	sayBadAnswer = "The answer that came is not one of AWS. Nothing was handed over. If this stays, the operator of Serval should look for a proxy between Serval and AWS."
)

// explain says what an answer of STS means, who can mend it, and how often such
// a call is made (STS API Reference, AssumeRoleWithWebIdentity, Errors; Common
// Error Types).
func (a asking) explain(e *Error) {
	account, role := a.role.AccountID, a.role.Name
	words := strings.ToLower(e.Message)
	say := func(tries int, kind serval.Kind, format string, args ...any) {
		e.tries, e.Kind, e.Sentence = tries, kind, fmt.Sprintf(format, args...)
	}
	if e.transport() {
		return
	}
	switch e.Code {
	case "IDPCommunicationError":
		say(3, serval.Unavailable, "AWS cannot reach your identity provider to check your sign-in. Try again in a minute.")

	case "InvalidIdentityToken":
		switch {
		case strings.Contains(words, "retrieve verification key"):
			say(2, serval.Unavailable, "AWS could not fetch the signing keys of your identity provider. Try again in a minute; if this stays, the operator of Serval should check that AWS can reach them.")
		case strings.Contains(words, "no openidconnect provider"):
			say(1, serval.FailedPrecondition, "AWS account %s does not know your identity provider. An administrator of the account has to add it in IAM as an OpenID Connect provider.", account)
		case strings.Contains(words, "audience"):
			say(1, serval.FailedPrecondition, "AWS account %s does not accept sign-ins meant for Serval. An administrator of the account has to add Serval's client id to the audiences of the OpenID Connect provider in IAM.", account)
		default:
			e.Reauth = true
			say(1, serval.LoginRequired, "AWS did not accept your sign-in. Sign in again; if this stays, an administrator of AWS account %s should check its OpenID Connect provider in IAM.", account)
		}

	case "ExpiredTokenException", "ExpiredToken":
		e.Reauth = true
		say(1, serval.LoginRequired, "Your sign-in has ended. Sign in again.")

	case "IDPRejectedClaim":
		say(1, serval.FailedPrecondition, "Your identity provider told AWS that it does not stand by your sign-in. Ask the administrators of the identity provider.")

	case "RegionDisabledException":
		say(1, serval.FailedPrecondition, "AWS STS is switched off in region %s for account %s. An administrator of the account can activate it in the account settings of IAM, or the operator of Serval can set another region.", a.region, account)

	case "PackedPolicyTooLarge":
		say(1, serval.FailedPrecondition, "The limits on this session take more room than AWS gives them. Open it without narrowing. The operator of Serval can configure fewer networks, or switch session policies off.")

	case "MalformedPolicyDocument":
		say(1, "", "AWS does not understand the session policy that Serval wrote. This is a fault of Serval.")

	case "AccessDenied", "AccessDeniedException":
		switch {
		case strings.Contains(words, "sts:tagsession"):
			e.Denied = "sts:TagSession"
			say(1, serval.FailedPrecondition, "Your identity provider sends session tags, and role %s in AWS account %s does not take them. The owner of the role has to allow sts:TagSession in its trust policy.", role, account)
		case strings.Contains(words, "sts:setsourceidentity"):
			e.Denied = "sts:SetSourceIdentity"
			say(1, serval.FailedPrecondition, "Your identity provider sends a source identity, and role %s in AWS account %s does not take it. The owner of the role has to allow sts:SetSourceIdentity in its trust policy.", role, account)
		default:
			say(1, serval.FailedPrecondition, "Role %s in AWS account %s does not trust your sign-in, or is gone. The owner of the role has to allow sts:AssumeRoleWithWebIdentity for your identity provider in its trust policy.", role, account)
		}

	case "ValidationError":
		if strings.Contains(words, "durationseconds") || strings.Contains(words, "maxsessionduration") {
			e.Clamp = a.mint.Seconds > serval.DefaultMaxSessionSeconds
			say(1, serval.FailedPrecondition, "Role %s in AWS account %s no longer allows sessions as long as this one.", role, account)
			return
		}
		say(1, "", "AWS found the request for this session malformed. This is a fault of Serval.")

	case "RequestExpired", "SignatureDoesNotMatch":
		say(1, serval.FailedPrecondition, "The clocks of Serval and AWS differ. The operator of Serval has to set the clock.")

	default:
		say(1, serval.FailedPrecondition, "AWS refused this session with %s. Ask the operator of Serval, who finds AWS's words in the audit log.", e.Code)
	}
}

// transport explains what is the same for every call: no answer, one that is
// not AWS's, throttling, failures of AWS. It reports whether it was one of
// these.
func (e *Error) transport() bool {
	e.tries, e.Kind = 3, serval.Unavailable
	switch {
	case e.Status == 0:
		e.Code, e.Sentence = NoAnswer, sayNoAnswer
	case e.Status == http.StatusTooManyRequests || throttling[e.Code]:
		e.throttled, e.Sentence = true, sayThrottled
	case e.Status >= 500 || e.Code == "ServiceUnavailable" || e.Code == "InternalFailure" || e.Code == "InternalError":
		e.Sentence = sayFailed
	case e.Code == "":
		e.tries, e.Code, e.Sentence = 1, BadAnswer, sayBadAnswer
	default:
		return false
	}
	if e.Code == "" {
		e.Code = BadAnswer
	}
	return true
}

// throttling are the codes by which AWS services say that they are asked too
// often; STS answers them with status 400.
var throttling = map[string]bool{
	"Throttling":               true,
	"ThrottlingException":      true,
	"ThrottledException":       true,
	"RequestThrottled":         true,
	"TooManyRequestsException": true,
	"RequestLimitExceeded":     true,
	"SlowDown":                 true,
}

// signInFailed explains what became of a call of the federation endpoint, which
// has no codes and answers with pages, of which nothing is kept: they may hold
// the session. Status 0 stands for no answer, and err then says why.
func signInFailed(status int, requestID string, err error, m serval.Minted) *Error {
	e := &Error{Operation: "getSigninToken", Status: status, RequestID: identifier(requestID)}
	if err != nil {
		e.Message = clean(network(err), m.SecretAccessKey, m.SessionToken)
	}
	if status == http.StatusBadRequest || status == http.StatusForbidden {
		e.Code, e.tries, e.Kind = Refused, 1, serval.FailedPrecondition
		e.Sentence = "AWS does not open the console with this session. Open another one; if this stays, ask the operator of Serval."
		return e
	}
	e.transport()
	return e
}

// maxMessage bounds what is kept of AWS's words.
const maxMessage = 500

// jwt is what every ID token looks like, whole or cut off.
var jwt = regexp.MustCompile(`eyJ[\w-]{8,}(\.[\w-]*){0,2}`)

// clean returns AWS's words on one line, without the secrets they may repeat.
func clean(message string, secrets ...serval.Secret) string {
	for _, s := range secrets {
		if s.Empty() {
			continue
		}
		message = strings.ReplaceAll(message, s.Reveal(), s.String())
		for part := range strings.SplitSeq(s.Reveal(), ".") {
			if len(part) >= 16 {
				message = strings.ReplaceAll(message, part, s.String())
			}
		}
	}
	message = jwt.ReplaceAllString(message, serval.Secret{}.String())
	message = strings.Join(strings.Fields(strings.ToValidUTF8(message, "?")), " ")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return message
}

// identifier keeps a code or an id that looks like one.
func identifier(s string) string {
	if len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", r)
	}) {
		return "unreadable"
	}
	return s
}
