package monitor

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/getkin/kin-openapi/openapi3"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/master"
	"mlfnode/node/monitor/chart"
)

var update = flag.Bool("update", false, "write openapi.json")

// TestDocument generates the OpenAPI document from the table of routes and compares it with the one
// that nodes serve. After a change to the API, run this test with -update.
func TestDocument(t *testing.T) {
	got := render(t, describe(t))
	if *update {
		if err := os.WriteFile("openapi.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal(
			"openapi.json is not what the table of routes gives; run: go test ./node/monitor -run TestDocument -update")
	}
	doc, err := openapi3.NewLoader().LoadFromData(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Description != "Needs a node's certificate." { // only for a master that has a store of snapshots
				described[method+" "+path] = true
			}
		}
	}
	for pattern := range tableOf(t).byPattern {
		if !strings.Contains(pattern, " "+api.OldPrefix+"/") && !described[pathOf(pattern)] {
			t.Errorf("%s is not in the document", pattern)
		}
		delete(described, pathOf(pattern))
	}
	for pattern := range described {
		t.Errorf("the document has %s, which no route answers", pattern)
	}
}

// oneSlot is what a cluster can run that takes one trial at a time.
var oneSlot = master.Capacity{Slots: func(grid.Resources) int { return 1 }}

func tableOf(t *testing.T) *router {
	return New(Config{Logger: testLog(t),
		Master: master.New(master.Config{Logger: testLog(t), Store: &jetstream.Store{},
			Capacity: oneSlot})}).newRouter()
}

var placeholder = regexp.MustCompile(`\{(\w+)(?:\.\.\.)?\}`)

// pathOf returns a pattern in the form of OpenAPI.
func pathOf(pattern string) string { return strings.ReplaceAll(pattern, "...}", "}") }

// describe generates the document.
func describe(t *testing.T) *huma.OpenAPI {
	schemas := huma.NewMapRegistry("#/components/schemas/", schemaName)
	for from, to := range map[reflect.Type]reflect.Type{ // types that marshal themselves
		reflect.TypeFor[space.Params](): reflect.TypeFor[map[string]any](),
		reflect.TypeFor[space.Value]():  reflect.TypeFor[any](),
		reflect.TypeFor[grid.Milli]():   reflect.TypeFor[float64](),
		reflect.TypeFor[api.Duration](): reflect.TypeFor[any](),
		reflect.TypeFor[json.Number]():  reflect.TypeFor[float64](),
		reflect.TypeFor[grid.Metric]():  reflect.TypeFor[map[string]any](),
		reflect.TypeFor[chart.Number](): reflect.TypeFor[*float64](),
	} {
		schemas.RegisterTypeAlias(from, to)
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "mlfnode", Version: "1",
			Description: "The API of a node. Fields are only ever added: skip those that you do not know."},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer", Description: "of mlfnode token, from its second dot on"},
		}},
		Security: []map[string][]string{{"token": {}}},
	}
	m := New(Config{Logger: testLog(t)})
	for _, rt := range m.handlers.routes() {
		doc.AddOperation(operation(schemas, &rt))
	}
	comments := fieldComments(t)
	for name, s := range schemas.Map() {
		for field, p := range s.Properties {
			p.Description = comments[name+"."+field]
		}
		s.AdditionalProperties = nil // fields are added
	}
	return doc
}

func operation(schemas huma.Registry, rt *route) *huma.Operation {
	op := &huma.Operation{
		Method: rt.method, Path: pathOf(rt.prefix() + rt.pattern), Summary: rt.summary, Tags: []string{rt.topic},
		OperationID: strings.ToLower(rt.method) + "-" +
			strings.Trim(regexp.MustCompile(`\W+`).ReplaceAllString(rt.pattern, "-"), "-"),
		Description: map[access]string{
			mayNothing: "Needs no token.", mayRead: "Needs a viewer's token.", mayAct: "Needs an operator's token.",
			mayAdminister: "Needs an admin's token.", forNodes: "Needs a node's certificate.",
			mayOwn: "Answers through the socket in the master's state folder only.",
		}[rt.access],
	}
	for _, name := range placeholder.FindAllStringSubmatch(rt.pattern, -1) {
		op.Parameters = append(op.Parameters,
			&huma.Param{Name: name[1], In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
	}
	for _, p := range rt.query {
		q := &huma.Param{Name: p.name, In: "query", Description: p.about, Schema: &huma.Schema{Type: p.kind}}
		if p.kind == "object" {
			q.Style = "deepObject"
		}
		op.Parameters = append(op.Parameters, q)
	}
	switch {
	case rt.takes != nil:
		op.RequestBody = &huma.RequestBody{Required: true,
			Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(rt.takes, true, "")}}}
	case rt.method == http.MethodPut:
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{mediaBinary: {}}}
	}
	success := &huma.Response{Description: "Success"}
	for _, media := range slices.Concat(rt.media,
		map[bool][]string{true: {"application/json"}}[rt.media == nil && rt.gives != nil]) {
		content := &huma.MediaType{}
		if rt.gives != nil && media != mediaCSV {
			content.Schema = schemas.Schema(rt.gives, true, "")
			if media == mediaLines && rt.lines != nil {
				content.Schema = schemas.Schema(rt.lines, true, "")
			}
		}
		if success.Content == nil {
			success.Content = map[string]*huma.MediaType{}
		}
		success.Content[media] = content
	}
	status := rt.status
	if status == 0 {
		status = http.StatusOK
	}
	op.Responses = map[string]*huma.Response{
		strconv.Itoa(status): success,
		"default": {Description: "A problem", Content: map[string]*huma.MediaType{
			api.MediaProblem: {Schema: schemas.Schema(reflect.TypeFor[api.Problem](), true, "")},
		}},
	}
	return op
}

// schemaName distinguishes types of the same name in different packages.
func schemaName(t reflect.Type, hint string) string {
	if t == reflect.TypeFor[struct{}]() {
		return "Nothing"
	}
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t { // names that the document had before these types moved
	case reflect.TypeFor[space.Axis]():
		return "GridAxis"
	case reflect.TypeFor[space.Sample]():
		return "GridSample"
	case reflect.TypeFor[api.Usage]():
		return "Resources"
	}
	if pkg := t.PkgPath(); pkg != "" && pkg != "mlfnode/node/api" && pkg != "mlfnode/node/monitor" &&
		pkg != "mlfnode/node/membership" {
		base := filepath.Base(pkg)
		return strings.ToUpper(base[:1]) + base[1:] + name
	}
	return name
}

// fieldComments returns the comments of the fields of wire types in the source, by schema and JSON
// name.
func fieldComments(t *testing.T) map[string]string {
	all := map[string]string{}
	for prefix, pattern := range map[string]string{"": "../api/*.go", "Chart": "chart/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if s, ok := spec.Type.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						if field.Tag != nil && (field.Comment != nil || field.Doc != nil) {
							name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"),
								",")
							all[prefix+spec.Name.Name+"."+name] = cmp.Or(textOf(field.Comment), textOf(field.Doc))
						}
					}
				}
				return true
			})
		}
	}
	return all
}

// render formats the document with one line for each path and each schema.
func render(t *testing.T, doc *huma.OpenAPI) []byte {
	t.Helper()
	var top map[string]json.RawMessage
	b, err := json.Marshal(doc)
	if err == nil {
		err = json.Unmarshal(b, &top)
	}
	if err != nil {
		t.Fatal(err)
	}
	var components map[string]json.RawMessage
	if err := json.Unmarshal(top["components"], &components); err != nil {
		t.Fatal(err)
	}
	components["schemas"] = lineEach(t, components["schemas"])
	top["components"] = lineEach(t, compose(components))
	top["paths"] = lineEach(t, top["paths"])
	return append(lineEach(t, compose(top)), '\n')
}

func compose(all map[string]json.RawMessage) json.RawMessage {
	var out []byte
	for _, key := range slices.Sorted(maps.Keys(all)) {
		out = fmt.Appendf(out, ",\n%q:%s", key, all[key])
	}
	return slices.Concat([]byte("{"), bytes.TrimPrefix(out, []byte(",")), []byte("\n}"))
}

// lineEach formats an object with one line for each key, and leaves the values unchanged.
func lineEach(t *testing.T, b json.RawMessage) json.RawMessage {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return compose(all)
}

// textOf returns a comment in one line.
func textOf(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
