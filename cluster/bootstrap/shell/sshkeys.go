package shell

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
)

// passphraseTries is how often OpenSSH asks for a passphrase.
const passphraseTries = 3

// defaultKeys are the files that OpenSSH tries when none is named.
var defaultKeys = [...]string{"id_ed25519", "id_ecdsa", "id_rsa"}

// keyring holds the keys of files, each read once, and unlocked once for all machines.
type keyring struct {
	prompt Prompter

	mu   sync.Mutex
	keys map[string]*fileKey
}

// fileKey is a private key in a file. An encrypted one is opened once a machine has said that it
// would accept the key.
type fileKey struct {
	path   string
	prompt Prompter
	data   []byte
	public ssh.PublicKey
	err    error // why it is not a key

	mu      sync.Mutex
	signer  ssh.Signer
	openErr error // why it could not be opened
}

// key returns the key of a file.
func (k *keyring) key(path string) *fileKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys[path] == nil {
		k.keys[path] = readKey(path, k.prompt)
	}
	return k.keys[path]
}

func readKey(path string, prompt Prompter) *fileKey {
	key := &fileKey{path: path, prompt: prompt}
	if key.data, key.err = os.ReadFile(path); key.err != nil {
		return key
	}
	signer, err := ssh.ParsePrivateKey(key.data)
	locked, encrypted := errors.AsType[*ssh.PassphraseMissingError](err)
	switch {
	case err == nil:
		key.signer, key.public = signer, signer.PublicKey()
	case encrypted:
		if key.public = locked.PublicKey; key.public == nil {
			// old formats hide it; without that file it is opened to be offered
			key.public, _ = readPublic(path + ".pub")
		}
	default:
		// The public half alone names a key of the agent.
		if key.public, err = readPublic(path); err != nil {
			key.err = errNotKey
		}
		key.openErr = errNotKey
	}
	return key
}

var errNotKey = errors.New("read key: not a private key")

func readPublic(path string) (ssh.PublicKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	return key, err
}

// open returns the signer, and asks for the passphrase the first time.
func (k *fileKey) open(ctx context.Context) (ssh.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != nil || k.openErr != nil {
		return k.signer, k.openErr
	}
	if k.prompt == nil {
		return nil, problemf("run `ssh-add "+Quote(k.path)+"` first",
			"the key %s is encrypted, and there is no terminal to ask for its passphrase", k.path)
	}
	for range passphraseTries {
		phrase, err := k.prompt.Secret(ctx, "passphrase of the key "+k.path)
		if err != nil {
			if ctx.Err() == nil {
				k.openErr = err // the user would not enter it for the next machine either
			}
			return nil, err
		}
		k.signer, err = ssh.ParsePrivateKeyWithPassphrase(k.data, phrase)
		clear(phrase)
		if err == nil {
			return k.signer, nil
		}
		k.signer = nil
	}
	k.openErr = problemf("try again, or run `ssh-add "+Quote(k.path)+"` first",
		"the passphrase does not open the key %s", k.path)
	return nil, k.openErr
}

// usableErr returns why a key can't sign, such as one that is only a public key.
func (k *fileKey) usableErr() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if errors.Is(k.openErr, errNotKey) {
		return errNotKey
	}
	return nil
}

// lazySigner offers a key of a file for one connection.
type lazySigner struct {
	key  *fileKey
	open func() (ssh.Signer, error)
}

var _ ssh.AlgorithmSigner = lazySigner{}

// PublicKey implements ssh.Signer.
func (l lazySigner) PublicKey() ssh.PublicKey { return l.key.public }

// Sign implements ssh.Signer.
func (l lazySigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return l.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (l lazySigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := l.open()
	if err != nil {
		return nil, err
	}
	if s, ok := signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return s.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}
