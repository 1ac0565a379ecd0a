package docker

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
)

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// lookUp returns "user/password" of the credentials found for the image, or "token:…" for an
// identity token.
func lookUp(t *testing.T, image string) (string, error) {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := credentialsFor(context.Background(), named)
	if encoded == "" {
		return "", err
	}
	auth, derr := registry.DecodeAuthConfig(encoded)
	if derr != nil {
		t.Fatal(derr)
	}
	if auth.IdentityToken != "" {
		return "token:" + auth.IdentityToken, err
	}
	return auth.Username + "/" + auth.Password, err
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	bin := filepath.Join(dir, "bin")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script := func(name, body string) {
		writeFile(t, filepath.Join(bin, "docker-credential-"+name), "#!/bin/sh\n"+body)
		if err := os.Chmod(filepath.Join(bin, "docker-credential-"+name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script("store", `read server; echo "{\"Username\":\"store\",\"Secret\":\"$server\"}"`)
	script("token", `echo '{"Username":"<token>","Secret":"abc"}'`)
	script("empty", `echo 'credentials not found in native keychain'; exit 1`)
	script("broken", `echo 'hunter2'; echo 'hunter2' >&2; exit 3`)
	plain := fmt.Sprintf(`{"auths":{"https://index.docker.io/v1/":{"auth":%q},"reg.lab":{"auth":%q},"https://old.lab/v1/":{"auth":%q},"idle.lab":{},"tok.lab":{"identitytoken":"xyz"}`,
		basic("hub", "1"), basic("lab", "2"), basic("old", "3"))
	tests := map[string]struct {
		docker, podman, image, want, problem string
	}{
		"nothing":              {image: "reg.lab/x"},
		"hub":                  {docker: plain + `}}`, image: "ubuntu", want: "hub/1"},
		"hub by its full name": {docker: plain + `}}`, image: "docker.io/lab/x", want: "hub/1"},
		"registry":             {docker: plain + `}}`, image: "reg.lab/a/b:1", want: "lab/2"},
		"registry with scheme": {docker: plain + `}}`, image: "old.lab/x", want: "old/3"},
		"another registry":     {docker: plain + `}}`, image: "reg.lab:5000/x"},
		"entry without secret": {docker: plain + `}}`, image: "idle.lab/x"},
		"identity token":       {docker: plain + `}}`, image: "tok.lab/x", want: "token:xyz"},
		"store": {docker: plain + `},"credsStore":"store"}`, image: "reg.lab/x",
			want: "store/reg.lab"},
		"store for the hub": {docker: plain + `},"credsStore":"store"}`,
			image: "ubuntu", want: "store/" + hubKey},
		"helper before store": {docker: plain + `},"credsStore":"store","credHelpers":{"reg.lab":"token"}}`,
			image: "reg.lab/x", want: "token:abc"},
		"store that has nothing": {docker: plain + `},"credsStore":"empty"}`, image: "reg.lab/x", want: "lab/2"},
		"store that fails": {docker: `{"credsStore":"broken"}`, image: "reg.lab/x",
			problem: "docker-credential-broken"},
		"store that is missing": {docker: `{"credsStore":"none"}`, image: "reg.lab/x",
			problem: "docker-credential-none"},
		"store that is a path": {docker: `{"credsStore":"../../bin/sh"}`, image: "reg.lab/x",
			problem: "not the name"},
		"damaged file": {docker: `{"auths": hunter2`, image: "reg.lab/x", problem: "not valid JSON"},
		"damaged entry": {docker: `{"auths":{"reg.lab":{"auth":"hunter2!"}}}`, image: "reg.lab/x",
			problem: "damaged"},
		"podman's file": {podman: plain + `}}`, image: "reg.lab/x", want: "lab/2"},
		"podman's namespace": {podman: fmt.Sprintf(`{"auths":{"reg.lab/a":{"auth":%q},"reg.lab":{"auth":%q}}}`,
			basic("a", "1"), basic("all", "2")), image: "reg.lab/a/b", want: "a/1"},
		"podman's other namespace": {podman: fmt.Sprintf(`{"auths":{"reg.lab/a":{"auth":%q},"reg.lab":{"auth":%q}}}`,
			basic("a", "1"), basic("all", "2")), image: "reg.lab/ab/c", want: "all/2"},
		"docker first": {docker: plain +
			`}}`, podman: fmt.Sprintf(`{"auths":{"reg.lab":{"auth":%q}}}`, basic("pod", "1")),
			image: "reg.lab/x", want: "lab/2"},
		"second file when broken": {docker: `nonsense`, podman: plain + `}}`, image: "reg.lab/x", want: "lab/2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for file, text := range map[string]string{".docker/config.json": tt.docker,
				"run/containers/auth.json": tt.podman} {
				file = filepath.Join(dir, file)
				os.Remove(file)
				if text != "" {
					writeFile(t, file, text)
				}
			}
			got, err := lookUp(t, tt.image)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			switch {
			case tt.problem == "" && err != nil:
				t.Errorf("got the error %v, want none", err)
			case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
				t.Errorf("got the error %v, want one with %q", err, tt.problem)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("got the error %v, which tells the secret", err)
			}
		})
	}
}
