package login

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The words that Detail["cause"] of a refusal may hold. They are for the audit
// log and for programs, and do not change.
const (
	CauseState         = "state"          // the callback carries no state, or another one's
	CauseAttempt       = "attempt"        // the attempt is too old, or of another issuer
	CauseResponseMode  = "response_mode"  // tokens in the callback
	CauseCallbackIss   = "callback_iss"   // the callback's iss is missing or another's (RFC 9207)
	CauseProviderError = "provider_error" // the provider answered with an error
	CauseAccessDenied  = "access_denied"  // the provider or the person said no
	CauseLoginRequired = "login_required" // prompt=none, and nobody is signed in there
	CauseCode          = "code"           // the code is missing, used or expired
	CauseClient        = "client"         // the provider does not take our credentials
	CauseToken         = "token"          // the token endpoint's answer, or the token, has no usable form
	CauseSize          = "size"           // longer than AWS takes
	CauseAlg           = "alg"
	CauseKid           = "kid"
	CauseSignature     = "signature"
	CauseClaims        = "claims" // duplicate claims, or names that differ in case only
	CauseIss           = "iss"
	CauseAud           = "aud"
	CauseAzp           = "azp"
	CauseSub           = "sub"
	CauseExp           = "exp"
	CauseIat           = "iat"
	CauseNbf           = "nbf"
	CauseNonce         = "nonce"
	CauseAuthTime      = "auth_time"
	CauseAMR           = "amr"
	CauseAtHash        = "at_hash"
	CauseEmail         = "email"
	CauseEmailVerified = "email_verified"
	CauseUserInfo      = "userinfo"
	CauseRefresh       = "refresh"   // the refresh token is refused, or brought another person
	CauseDiscovery     = "discovery" // the provider's metadata cannot be had, or is not acceptable
	CauseKeys          = "jwks"      // the provider's keys cannot be had
	CauseAway          = "away"      // the provider does not answer
)

// refuse returns a refusal with its cause.
func refuse(kind serval.Kind, cause, format string, args ...any) error {
	return &serval.Refusal{
		Kind:   kind,
		Reason: fmt.Sprintf(format, args...),
		Detail: map[string]string{"cause": cause},
	}
}

// because puts the fault behind a refusal, for the log. The fault must hold no
// secret.
func because(refusal, fault error) error { return fmt.Errorf("%w (%w)", refusal, fault) }

// cleanFault returns what went wrong with a call, without the URL and without
// anything that the far side wrote: either may hold a secret.
func cleanFault(doing string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w", doing, u.Err)
	}
	for _, known := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w", doing, known)
		}
	}
	return fmt.Errorf("%s: the answer cannot be read", doing)
}
