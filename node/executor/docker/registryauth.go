package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
)

// hubKey is the name under which Docker keeps the credentials of docker.io.
const hubKey = "https://index.docker.io/v1/"

// credentialHelperTimeout bounds a credential helper, which may wait for a key store that nobody
// unlocks.
const credentialHelperTimeout = 20 * time.Second

// authFile is the credentials part of Docker's config.json and of Podman's auth.json, which share a
// format.
type authFile struct {
	Auths map[string]struct {
		registry.AuthConfig
		Auth string `json:"auth"`
	} `json:"auths"`
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

// authFiles lists the files with the user's credentials: Docker's, then Podman's.
func authFiles() []string {
	home, _ := os.UserHomeDir()
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" && home != "" {
		dir = filepath.Join(home, ".docker")
	}
	var files []string
	if dir != "" {
		files = append(files, filepath.Join(dir, "config.json"))
	}
	if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		files = append(files, file)
	}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		files = append(files, filepath.Join(run, "containers", "auth.json"))
	}
	if home != "" {
		files = append(files, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	return files
}

// credentialsFor returns the user's credentials for the registry of an image, encoded for the
// engine's API, or "" if there are none. It reads the files for each pull, so that a `docker login`
// takes effect immediately. The error names the unreadable file and contains no secret; the pull
// may work without credentials.
func credentialsFor(ctx context.Context, named reference.Named) (string, error) {
	var problems []error
	for _, name := range authFiles() {
		auth, err := readAuthFile(ctx, name, named)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if auth != nil {
			encoded, err := registry.EncodeAuthConfig(*auth)
			return encoded, err
		}
	}
	return "", errors.Join(problems...)
}

// readAuthFile returns one file's credentials for the registry, or nil.
func readAuthFile(ctx context.Context, name string, named reference.Named) (*registry.AuthConfig, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	var f authFile
	if json.Unmarshal(b, &f) != nil { // its error would quote the file
		return nil, fmt.Errorf("read credentials: %s is not valid JSON", name)
	}
	server := reference.Domain(named)
	key := server
	if server == "docker.io" {
		key = hubKey
	}
	helper := f.CredHelpers[server]
	if helper == "" {
		helper = f.CredHelpers[key]
	}
	if helper == "" {
		helper = f.CredsStore
	}
	var problem error
	if helper != "" {
		auth, err := askCredentialHelper(ctx, helper, key)
		if auth != nil {
			return auth, nil
		}
		problem = err // the file may contain credentials itself
	}
	entries := make(map[string]string, len(f.Auths))
	for k := range f.Auths {
		entries[normalizeRegistry(k)] = k
	}
	for at := named.Name(); at != ""; { // Podman stores credentials for parts of a registry, too
		if k, ok := entries[at]; ok {
			auth := f.Auths[k].AuthConfig
			if err := decodeAuth(f.Auths[k].Auth, &auth); err != nil {
				return nil, fmt.Errorf("read credentials: %s: the entry of %s is damaged", name, k)
			}
			if auth.Username != "" || auth.IdentityToken != "" || auth.RegistryToken != "" {
				auth.ServerAddress = key
				return &auth, problem
			}
		}
		at = at[:max(strings.LastIndexByte(at, '/'), 0)]
	}
	return nil, problem
}

// normalizeRegistry returns a registry's host and path: "https://index.docker.io/v1/" is docker.io,
// "http://reg.lab/v2/" is reg.lab.
func normalizeRegistry(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	key = strings.TrimSuffix(strings.TrimSuffix(key, "/v1"), "/v2")
	if rest, ok := strings.CutPrefix(key, "index.docker.io"); ok {
		return "docker.io" + rest
	}
	return key
}

// decodeAuth reads "user:password" in base64, as Docker writes it.
func decodeAuth(text string, auth *registry.AuthConfig) error {
	if text == "" {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return errors.New("it has no colon")
	}
	auth.Username, auth.Password = user, strings.TrimRight(password, "\x00")
	return nil
}

// askCredentialHelper runs the program docker-credential-NAME. No error contains its output, which
// may be the secret.
func askCredentialHelper(ctx context.Context, name, server string) (*registry.AuthConfig, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return nil, fmt.Errorf("read credentials: %q is not the name of a credential helper", name)
	}
	ctx, stop := context.WithTimeout(ctx, credentialHelperTimeout)
	defer stop()
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil && bytes.Contains(out, []byte("credentials not found")) { // defined by the protocol for none
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: docker-credential-%s: %w", name, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out, &answer) != nil || answer.Secret == "" {
		return nil, fmt.Errorf("read credentials: docker-credential-%s gave no credentials", name)
	}
	auth := &registry.AuthConfig{ServerAddress: server}
	if answer.Username == "<token>" {
		auth.IdentityToken = answer.Secret
	} else {
		auth.Username, auth.Password = answer.Username, answer.Secret
	}
	return auth, nil
}
