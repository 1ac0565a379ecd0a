package shell

import (
	"slices"

	"golang.org/x/crypto/ssh"
)

// findCertificates reads those that the configuration names, and those that lie beside the files of
// keys.
func (h *handshake) findCertificates(keyFiles []string) {
	paths := slices.Clone(h.route.certificates)
	for _, file := range keyFiles {
		paths = append(paths, file+"-cert.pub")
	}
	for _, path := range paths {
		key, err := readPublic(path)
		if cert, ok := key.(*ssh.Certificate); err == nil && ok { // as with OpenSSH, others are passed over
			h.certificates = append(h.certificates, userCertificate{cert, path})
		}
	}
}

// userCertificate is what an authority has signed for a key of the user.
type userCertificate struct {
	*ssh.Certificate
	path string
}

// addCertified offers a key with each certificate that there is for it.
func (h *handshake) addCertified(s ssh.Signer) {
	for _, c := range h.certificates {
		if !sameKey(c.Key, s.PublicKey()) {
			continue
		}
		if signer, err := ssh.NewCertSigner(c.Certificate, s); err == nil {
			h.addOffer(signer, c.path)
		}
	}
}
