package documents_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkGo returns an error unless the Go file at path contains all texts. texts are the texts in
// backticks of a link to this file. If a text is an identifier, the file must declare the
// identifier. Any other text must be a type and its method, such as Basis.Hello, that the file
// declares, or it must occur in the file's code, outside of comments. The file's own name is always
// valid. A link with an anchor is an error, because line numbers change.
func checkGo(path, anchor string, texts []string) error {
	if anchor != "" {
		return fmt.Errorf("give the symbol in backticks, without #%s", anchor)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	declared, err := declarations(path, source)
	if err != nil {
		return err
	}
	tokens := tokensOf(source)
	var missing []error
	for _, text := range texts {
		switch {
		case text == path || strings.HasSuffix(path, string(filepath.Separator)+text):
		case declared[text]:
		case token.IsIdentifier(text):
			missing = append(missing, fmt.Errorf("%s declares no %s", path, text))
		case !strings.Contains(tokens, tokensOf([]byte(text))):
			missing = append(missing, fmt.Errorf("%s has no code %s", path, text))
		}
	}
	return errors.Join(missing...)
}

// declarations returns the names that a Go file declares outside of functions. It returns a method
// under two names: with its type, as in Basis.Hello, and without its type.
func declarations(path string, source []byte) (map[string]bool, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names[d.Name.Name] = true
			if d.Recv != nil {
				names[receiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						names[n.Name] = true
					}
				}
			}
		}
	}
	return names, nil
}

// receiver returns the name of the receiver type t, without pointers and type parameters.
func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr: // a type with one type parameter
		return receiver(t.X)
	case *ast.IndexListExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

// tokensOf returns the tokens of Go code, one token a line. It leaves out comments and the
// semicolons that Go inserts at line ends.
func tokensOf(code []byte) string {
	var s scanner.Scanner
	s.Init(token.NewFileSet().AddFile("", -1, len(code)), code, nil, 0)
	tokens := "\n"
	for {
		_, tok, literal := s.Scan()
		switch {
		case tok == token.EOF:
			return tokens
		case tok == token.SEMICOLON && literal == "\n":
		case literal != "":
			tokens += literal + "\n"
		default:
			tokens += tok.String() + "\n"
		}
	}
}

func TestCheckGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.go")
	require.NoError(t, os.WriteFile(path, []byte(`package p

// fine.Print("no") stands in a comment alone.
const serviceName = "Basis.Hello"

var first, second = 1, 2

type Basis struct{ id string }

type List[T any] []T

func NewTracer() { local := micro.RegisterTTL(30 * second); defer local.Close() }

func (b *Basis) Hello() {}

func (l List[T]) Len() int { return len(l) }
`), 0o644))
	for _, test := range []struct {
		anchor, code string
		want         string // error; empty: none
	}{
		{code: "file.go"},
		{code: "serviceName"},
		{code: "second"},
		{code: "Basis"},
		{code: "NewTracer"},
		{code: "Hello"},
		{code: "Basis.Hello"},
		{code: "List.Len"},
		{code: "micro.RegisterTTL"},
		{code: `"Basis.Hello"`},
		{code: "micro.RegisterTTL(30*second)"},
		{code: "defer local.Close()"},

		{code: "NewTracer", anchor: "L12", want: "give the symbol in backticks, without #L12"},
		{code: "Tracer", want: path + " declares no Tracer"},
		{code: "local", want: path + " declares no local"},
		{code: "id", want: path + " declares no id"},
		{code: "fine", want: path + " declares no fine"},
		{code: "other.go", want: path + " has no code other.go"},
		{code: "Basis.Len", want: path + " has no code Basis.Len"},
		{code: "micro.Register", want: path + " has no code micro.Register"},
		{code: `"Hello"`, want: path + ` has no code "Hello"`},
		{code: `fine.Print("no")`, want: path + ` has no code fine.Print("no")`},
	} {
		err := checkGo(path, test.anchor, []string{test.code})
		if test.want == "" {
			require.NoError(t, err, test.code)
		} else {
			require.EqualError(t, err, test.want)
		}
	}
	require.EqualError(t, checkGo(path, "", []string{"NewTracer", "One", "Two"}), path+" declares no One\n"+path+" declares no Two")
	require.NoError(t, checkGo(path, "", nil))
	require.ErrorIs(t, checkGo(path+"x", "", nil), os.ErrNotExist)
}
