// Package api carries what others read of Serval: the OpenAPI description of
// the HTTP API beside this file, and the JSON Schema of the configuration file.
package api

import _ "embed"

// ConfigSchema is the JSON Schema of the configuration file.
//
//go:embed config.schema.json
var ConfigSchema []byte
