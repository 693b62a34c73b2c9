package settings

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// maxSecret bounds the file of a secret that is read again and again.
const maxSecret = 64 << 10

// SecretFiles returns the files that Read takes secrets of the struct from, by
// the secret's variable. What is given otherwise cannot change while the program
// runs.
func SecretFiles(into any, environ []string, flags *pflag.FlagSet) map[string]string {
	given := variables(environ)
	files := make(map[string]string)
	for _, f := range fields(into) {
		if path := f.file(given, flags); f.secret && path != "" {
			files[f.name] = path
		}
	}
	return files
}

// ReadSecret reads a secret's file as Read does. Here nothing and a placeholder
// are errors too. The error holds neither the text nor the path.
func ReadSecret(path string) (serval.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return serval.Secret{}, fmt.Errorf("the file cannot be read: %s", reason(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	value := trimNewline(string(text))
	switch {
	case err != nil:
		return serval.Secret{}, fmt.Errorf("the file cannot be read: %s", reason(err))
	case len(text) > maxSecret:
		return serval.Secret{}, fmt.Errorf("the file has more than %d bytes", maxSecret)
	case value == "":
		return serval.Secret{}, errors.New("the file is empty")
	case isPlaceholder(value):
		return serval.Secret{}, errors.New("the file holds a placeholder; put the real value there")
	}
	return serval.NewSecret(value), nil
}
