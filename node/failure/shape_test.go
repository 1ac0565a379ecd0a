package failure

import "testing"

func TestShape(t *testing.T) {
	for _, same := range [][2]string{
		{"KeyError: 'loss'", "KeyError: 'val_acc'"},
		{"ValueError: loss is nan at step 12", "ValueError: loss is nan at step 12000"},
		{"FileNotFoundError: [Errno 2] No such file or directory: '/a/b'", "FileNotFoundError: [Errno 2] No such file or directory: 'c d'"},
		{"cannot open /data/x/1.jpg: bad header", "cannot open /scratch/y.jpg: bad header"},
		{"RuntimeError: shape [64, 512, 7] at 0x7f00ab", "RuntimeError: shape [1, 2] at 0x55"},
		{"AssertionError: 1e-3 > -2.5", "AssertionError: 7 > 8"},
	} {
		if a, b := Shape(same[0]), Shape(same[1]); a != b {
			t.Errorf("%q and %q: got shapes %q and %q, want one", same[0], same[1], a, b)
		}
	}
	if a, b := Shape("KeyError: 'a'"), Shape("IndexError: 'a'"); a == b {
		t.Errorf("different errors have one shape %q", a)
	}
	if s := Shape(string(make([]byte, 1<<20))); len(s) > maxShape+len("…") {
		t.Errorf("got a shape of %d bytes", len(s))
	}
}
