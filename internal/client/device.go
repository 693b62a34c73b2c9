package client

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A Device waits to be let in by somebody who types its code elsewhere.
type Device struct {
	UserCode        string // what is typed
	VerificationURI string // where

	client   *Client
	code     serval.Secret
	verifier serval.Secret
	interval time.Duration
	endsAt   time.Time
}

// StartDevice begins a sign-in by a typed code. Where the bridge allows none, it
// is refused with FailedPrecondition.
func (c *Client) StartDevice(ctx context.Context, machine string) (*Device, error) {
	verifier := newVerifier()
	var d wire.Device
	err := c.As(serval.Secret{}).call(ctx, http.MethodPost, "/client/device", wire.NewDevice{
		ClientName: Label(c.name), ClientHost: Label(machine), CodeChallenge: serval.Challenge(verifier),
	}, &d)
	if serval.IsRefusal(err, serval.NotFound) {
		return nil, serval.Refuse(serval.FailedPrecondition, "The bridge at %s allows no sign-in by a typed code (SERVAL_DEVICE_LOGIN), because it can be phished. Sign in through a browser: serval login.", c.host)
	}
	if err != nil {
		return nil, err
	}
	return &Device{
		UserCode: plain(d.UserCode), VerificationURI: plain(d.VerificationURI), client: c, code: serval.NewSecret(d.DeviceCode), verifier: verifier,
		interval: max(time.Second, time.Duration(d.Interval)*time.Second), endsAt: c.now().Add(time.Duration(d.ExpiresIn) * time.Second),
	}, nil
}

// Wait asks, as often as it may, until the device is let in, refused, or the
// code has ended.
func (d *Device) Wait(ctx context.Context) (wire.ClientToken, error) {
	for d.client.now().Before(d.endsAt) {
		select {
		case <-time.After(d.interval):
		case <-ctx.Done():
			return wire.ClientToken{}, ctx.Err()
		}
		token, err := d.client.redeem(ctx, wire.NewClientToken{
			GrantType: "urn:ietf:params:oauth:grant-type:device_code", DeviceCode: d.code.Reveal(), CodeVerifier: d.verifier.Reveal(),
		})
		refused, ok := errors.AsType[*serval.Refusal](err)
		if !ok || refused.Detail["error"] != "authorization_pending" && refused.Detail["error"] != "slow_down" {
			return token, err
		}
		if seconds, err := strconv.Atoi(refused.Detail["interval"]); err == nil && seconds > 0 && seconds <= 60 {
			d.interval = time.Duration(seconds) * time.Second
		}
	}
	return wire.ClientToken{}, serval.Refuse(serval.Unauthenticated, "The code was not typed in time. Begin again.")
}
