package jetstream

import "sync"

// observers are functions to be called with each value. The zero value is ready to use.
type observers[T any] struct {
	mu     sync.Mutex
	lastID int
	fns    map[int]func(T)
}

func (l *observers[T]) add(fn func(T)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = map[int]func(T){}
	}
	l.lastID++
	id := l.lastID
	l.fns[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fns, id)
	}
}

func (l *observers[T]) notify(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.fns {
		fn(v)
	}
}

// installed is a function that may be set and removed while others call it. The zero value holds
// none.
type installed[F any] struct {
	mu sync.Mutex
	fn F
}

// set installs a function until stop is called.
func (i *installed[F]) set(fn F) (stop func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fn = fn
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		var none F
		i.fn = none
	}
}

// get returns the function, nil for none.
func (i *installed[F]) get() F {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fn
}
