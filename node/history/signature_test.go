package history

import "testing"

// TestShape checks that lines that differ only in what varies from attempt to attempt have one
// shape, and that others have different ones.
func TestShape(t *testing.T) {
	for _, same := range [][2]string{
		{"KeyError: 'loss'", "KeyError: 'val_acc'"},
		{"ValueError: loss is nan at step 12", "ValueError: loss is nan at step 12000"},
		{"FileNotFoundError: [Errno 2] No such file or directory: '/a/b'",
			"FileNotFoundError: [Errno 2] No such file or directory: 'c d'"},
		{"cannot open /data/x/1.jpg: bad header", "cannot open ../y.jpg: bad header"},
		{"RuntimeError: shape [64, 512, 7] at 0x7f00ab", "RuntimeError: shape [1, 2] at 0x55"},
		{"AssertionError: 1e-3 > -2.5", "AssertionError: 7 > 8"},
		{"tried to allocate 2.00 GiB on cuda:0", "tried to allocate 512.50 GiB on cuda:1"},
		{"object 1f3a9c0b77 is gone", "object 00aa11bb22cc is gone"},
	} {
		if a, b := signatureOf(same[0]), signatureOf(same[1]); a != b {
			t.Errorf("%q and %q: got shapes %q and %q, want one", same[0], same[1], a, b)
		}
	}
	for _, other := range [][2]string{{"KeyError: 'a'", "IndexError: 'a'"}, {"it can't be", "it can't do"},
		{"no CUDA device", "no disk device"}} {
		if a, b := signatureOf(other[0]), signatureOf(other[1]); a == b {
			t.Errorf("%q and %q have one shape %q", other[0], other[1], a)
		}
	}
}

func FuzzShape(f *testing.F) {
	f.Add("KeyError: 'x' at /a/b: 1.5e-3, [1, 2] 0xff \xff '")
	f.Fuzz(func(t *testing.T, line string) {
		if s := signatureOf(line); len(s) > maxSignature || s != signatureOf(line) {
			t.Errorf("%q: got %q", line, s)
		}
	})
}
