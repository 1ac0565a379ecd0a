package space

import (
	"math/bits"
	"sort"
)

// bitmap is a set of point numbers with one bit per point. It finds its k-th member and counts the
// members below a point.
type bitmap struct {
	words []uint64
	ranks []int64 // ranks[b] is the number of members before block b
}

// blockWords is the number of words between two ranks; the ranks add an eighth to the memory.
const blockWords = 8

func newBitmap(n int64) *bitmap {
	return &bitmap{words: make([]uint64, (n+63)/64)}
}

func (b *bitmap) set(i int64) { b.words[i/64] |= 1 << (i % 64) }

func (b *bitmap) has(i int64) bool { return b.words[i/64]>>(i%64)&1 == 1 }

// buildRanks counts the members after all bits are set.
func (b *bitmap) buildRanks() (members int64) {
	for i, w := range b.words {
		if i%blockWords == 0 {
			b.ranks = append(b.ranks, members)
		}
		members += int64(bits.OnesCount64(w))
	}
	return members
}

// rank returns the number of members below i.
func (b *bitmap) rank(i int64) int64 {
	word := int(i / 64)
	r := b.ranks[word/blockWords]
	for _, w := range b.words[word/blockWords*blockWords : word] {
		r += int64(bits.OnesCount64(w))
	}
	return r + int64(bits.OnesCount64(b.words[word]&(1<<(i%64)-1)))
}

// nth returns the k-th member, counting from 0.
func (b *bitmap) nth(k int64) int64 {
	block := sort.Search(len(b.ranks), func(i int) bool { return b.ranks[i] > k }) - 1
	k -= b.ranks[block]
	for i := block * blockWords; ; i++ {
		n := int64(bits.OnesCount64(b.words[i]))
		if k >= n {
			k -= n
			continue
		}
		w := b.words[i]
		for ; k > 0; k-- {
			w &= w - 1
		}
		return int64(i)*64 + int64(bits.TrailingZeros64(w))
	}
}

// next returns the member after i, which must exist.
func (b *bitmap) next(i int64) int64 {
	i++
	for w := i / 64; ; w++ {
		word := b.words[w]
		if w == i/64 {
			word &= ^uint64(0) << (i % 64)
		}
		if word != 0 {
			return w*64 + int64(bits.TrailingZeros64(word))
		}
	}
}
