package trust

import (
	"fmt"
	"testing"

	"mlfnode/grid"
)

// TestUsesAreCountedByName lets one key ask for many names with a token for few machines.
func TestUsesAreCountedByName(t *testing.T) {
	for _, uses := range []int{1, 2, 5} {
		a, err := OpenAuthority(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := a.MakeToken(TokenSpec{Role: RoleNode, Uses: uses})
		if err != nil {
			t.Fatal(err)
		}
		j, err := NewJoin(t.TempDir(), token, "n0")
		if err != nil {
			t.Fatal(err)
		}
		joined := 0
		for i := range 20 {
			j.node = grid.NodeID(fmt.Sprintf("n%d", i))
			if _, err := a.Join(j.Request()); err == nil {
				joined++
			}
		}
		if joined != uses || len(a.Nodes()) != uses {
			t.Errorf("a token for %d machines has registered %d names", uses, len(a.Nodes()))
		}
		j.node = "n0" // the same machine again, as after a lost answer
		if _, err := a.Join(j.Request()); err != nil {
			t.Errorf("the same key by the same name: %v", err)
		}
	}
}
