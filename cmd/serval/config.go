package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/keep"
	"github.com/serval-bridge/serval-bridge/internal/profile"
	"github.com/serval-bridge/serval-bridge/internal/settings"
)

// Config is the manual of serval's settings: each is an environment variable and
// a flag (SERVAL_BRIDGE_URL is --bridge-url). None is needed after the first
// sign-in, which remembers the bridge in the file below.
type Config struct {
	// BridgeURL is the bridge's address. Default: that of the last sign-in.
	BridgeURL string `env:"SERVAL_BRIDGE_URL" usage:"address of the bridge, such as https://serval.example.com"`
	// ClientDir is the folder of config.json and of what is kept. Default: serval
	// in the folders that the operating system has for configuration and caches.
	ClientDir string `env:"SERVAL_CLIENT_DIR" usage:"folder of config.json and of what is kept"`
	// Keychain is auto, or off: then the key of what is kept lies in a file of its
	// owner's, and not in the keychain of the operating system. Default: auto.
	Keychain string `env:"SERVAL_KEYCHAIN" envDefault:"auto" usage:"auto, or off to keep the key in a file"`
	// NoInput keeps serval from asking anybody, also where there is a terminal:
	// what needs an answer fails at once. Only serval login still opens a browser.
	// Default: off.
	NoInput bool `env:"SERVAL_NO_INPUT" usage:"never ask anybody: fail at once where a sign-in or an answer is missing"`
}

// A file is config.json: what the client remembers of its own.
type file struct {
	BridgeURL string            `json:"bridge_url,omitempty"` // of the last sign-in
	Region    string            `json:"region,omitempty"`     // of new profiles
	Template  string            `json:"template,omitempty"`   // of their names
	Aliases   map[string]string `json:"aliases,omitempty"`    // of roles, to ARNs

	path string
}

const maxFile = 1 << 20

// prepare reads the settings and the file, and opens what is kept.
func (p *program) prepare(c *cobra.Command) error {
	faults := settings.Read(&p.config, p.environ, c.Root().PersistentFlags())
	if p.config.Keychain != "auto" && p.config.Keychain != "off" {
		faults = append(faults, "SERVAL_KEYCHAIN: auto or off.")
	}
	if p.output != "table" && p.output != "json" {
		faults = append(faults, "--output: table or json.")
	}
	if len(faults) > 0 {
		return &failure{misused("these settings are wrong:\n  %s", strings.Join(faults, "\n  "))}
	}
	configDir, cacheDir, err := p.dirs()
	if err != nil {
		return &failure{err}
	}
	if p.file, err = readFile(filepath.Join(configDir, "config.json")); err != nil {
		return &failure{err}
	}
	var ring keep.Ring
	if p.config.Keychain == "auto" {
		ring = keep.System(p.getenv)
	}
	p.keep, p.unkept = keep.Open(cacheDir, ring, p.now)
	return nil
}

// dirs returns the folders of configuration and of what is kept.
func (p *program) dirs() (config, cache string, err error) {
	if p.config.ClientDir != "" {
		return p.config.ClientDir, filepath.Join(p.config.ClientDir, "kept"), nil
	}
	config, err = os.UserConfigDir()
	if err == nil {
		cache, err = os.UserCacheDir()
	}
	if err != nil {
		return "", "", misused("this machine says of no folder for configuration (%s). Set SERVAL_CLIENT_DIR to one.", err)
	}
	return filepath.Join(config, "serval"), filepath.Join(cache, "serval"), nil
}

// readFile reads config.json; one that is missing is empty.
func readFile(path string) (f file, err error) {
	f.path = path
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("reading serval's configuration: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || len(text) > maxFile {
		return f, misused("%s cannot be read (%v). Mend it, or remove it and sign in again.", path, err)
	}
	return f, nil
}

// text returns what stands in config.json.
func (f file) text() ([]byte, error) {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing serval's configuration: %w", err)
	}
	return append(text, '\n'), nil
}

// save writes config.json.
func (f file) save() error {
	text, err := f.text()
	if err != nil {
		return err
	}
	return profile.Replace(f.path, text)
}

// origin returns the bridge's.
func (p *program) origin() (string, error) {
	address := p.config.BridgeURL
	if address == "" {
		address = p.file.BridgeURL
	}
	if address == "" {
		return "", misused("no bridge is set. Sign in to yours once, and it is remembered: serval login https://serval.example.com (or set SERVAL_BRIDGE_URL).")
	}
	return client.Origin(address)
}

// open returns a client of the bridge that is nobody's.
func (p *program) open() (*client.Client, error) {
	if p.bridge != nil {
		return p.bridge, nil
	}
	origin, err := p.origin()
	if err != nil {
		return nil, err
	}
	p.bridge, err = client.New(client.Config{BaseURL: origin, Name: "serval " + strings.Fields(version())[0], Now: p.now})
	return p.bridge, err
}
