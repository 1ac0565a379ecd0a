package shell

import (
	"slices"

	"golang.org/x/crypto/ssh"
)

// findCertificates reads those that the configuration names, and those that lie beside the files of
// keys.
func findCertificates(named, keyFiles []string) (found []userCertificate) {
	paths := slices.Clone(named)
	for _, file := range keyFiles {
		paths = append(paths, file+"-cert.pub")
	}
	for _, path := range paths {
		key, err := readPublic(path)
		if cert, ok := key.(*ssh.Certificate); err == nil && ok { // as with OpenSSH, others are passed over
			found = append(found, userCertificate{cert, path})
		}
	}
	return found
}

// userCertificate is what an authority has signed for a key of the user.
type userCertificate struct {
	*ssh.Certificate
	path string
}

// addCertified offers a key with each certificate that there is for it.
func (k *keyOffers) addCertified(s ssh.Signer) {
	for _, c := range k.certificates {
		if !sameKey(c.Key, s.PublicKey()) {
			continue
		}
		if signer, err := ssh.NewCertSigner(c.Certificate, s); err == nil {
			k.addOffer(signer, c.path)
		}
	}
}
