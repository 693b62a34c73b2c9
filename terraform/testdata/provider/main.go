// This stands in for the AWS provider where a module is evaluated and nothing is
// made: terraform validate, and terraform test over mock_provider. It has the
// names and types of the file that AWS_SCHEMA names, and no behaviour.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type resource struct {
	Attributes map[string]struct {
		Type               string
		Required, Computed bool
	}
	Blocks map[string]resource
}

func (r resource) block() *tfprotov6.SchemaBlock {
	b := &tfprotov6.SchemaBlock{}
	for name, a := range r.Attributes {
		b.Attributes = append(b.Attributes, &tfprotov6.SchemaAttribute{
			Name: name, Required: a.Required, Optional: !a.Required && !a.Computed, Computed: !a.Required,
			Type: map[string]tftypes.Type{
				"string": tftypes.String, "number": tftypes.Number, "bool": tftypes.Bool,
				"list": tftypes.List{ElementType: tftypes.String}, "map": tftypes.Map{ElementType: tftypes.String},
			}[a.Type],
		})
	}
	for name, inner := range r.Blocks {
		b.BlockTypes = append(b.BlockTypes, &tfprotov6.SchemaNestedBlock{TypeName: name, Nesting: tfprotov6.SchemaNestedBlockNestingModeList, Block: inner.block()})
	}
	return b
}

// A provider answers what it is asked without anything being made; Terraform asks
// no more of it.
type provider struct {
	tfprotov6.ProviderServer
	schema *tfprotov6.GetProviderSchemaResponse
}

func (p provider) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	answer := &tfprotov6.GetMetadataResponse{}
	for name := range p.schema.ResourceSchemas {
		answer.Resources = append(answer.Resources, tfprotov6.ResourceMetadata{TypeName: name})
	}
	return answer, nil
}

func (p provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return p.schema, nil
}

func (p provider) GetResourceIdentitySchemas(context.Context, *tfprotov6.GetResourceIdentitySchemasRequest) (*tfprotov6.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov6.GetResourceIdentitySchemasResponse{}, nil
}

func (p provider) ValidateProviderConfig(_ context.Context, r *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (p provider) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

func (p provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func main() {
	text, err := os.ReadFile(os.Getenv("AWS_SCHEMA"))
	if err != nil {
		log.Fatal(err)
	}
	var file struct{ Resources map[string]resource }
	if err := json.Unmarshal(text, &file); err != nil {
		log.Fatal(err)
	}
	schema := &tfprotov6.GetProviderSchemaResponse{
		Provider:        &tfprotov6.Schema{Block: &tfprotov6.SchemaBlock{Attributes: []*tfprotov6.SchemaAttribute{{Name: "profile", Type: tftypes.String, Optional: true}}}},
		ResourceSchemas: map[string]*tfprotov6.Schema{},
	}
	for name, r := range file.Resources {
		schema.ResourceSchemas[name] = &tfprotov6.Schema{Block: r.block()}
	}
	err = tf6server.Serve("registry.terraform.io/hashicorp/aws", func() tfprotov6.ProviderServer { return provider{schema: schema} })
	if err != nil {
		log.Fatal(err)
	}
}
