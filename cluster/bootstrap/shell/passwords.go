package shell

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"

	"mlfnode/grid/lazyregexp"
)

// passwordTries is how often OpenSSH asks for a password.
const passwordTries = 3

// login is who is let in where. The host key is part of it: what was typed for one machine goes to no other that took its address.
type login struct{ user, machine, key string }

// passwordCache keeps the passwords that were typed, until the Dialer is gone: a person is asked once for each login, however often it is
// connected to.
type passwordCache struct {
	mu      sync.Mutex
	byLogin map[login]*password
}

// get gives the password of a login.
func (c *passwordCache) get(l login) *password {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byLogin[l] == nil {
		c.byLogin[l] = &password{turn: make(chan struct{}, 1)}
	}
	return c.byLogin[l]
}

// password is the last answer for a login. Answers are numbered, so that one who is refused the first does not take the second,
// which another has asked for meanwhile, for refused.
type password struct {
	turn chan struct{} // held by whoever asks

	mu      sync.Mutex
	answer  string
	number  int // of answer, 0 for none
	refused int // the last answer that was
}

// get gives the answer that is there, or else asks for one. again tells that the last one was refused.
func (p *password) get(ctx context.Context, ask func(again bool) (string, error)) (answer string, number int, err error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return "", 0, context.Cause(ctx)
	}
	answer, number, usable := p.current()
	if usable {
		return answer, number, nil
	}
	if answer, err = ask(number > 0); err != nil {
		return "", 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.number = answer, number+1
	return p.answer, p.number, nil
}

func (p *password) current() (answer string, number int, usable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answer, p.number, p.number > p.refused
}

func (p *password) refuse(number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = max(p.refused, number)
}

// cachedPassword is the password of the login that the handshake is for.
func (h *handshake) cachedPassword() *password {
	return h.dialer.passwords.get(login{user: h.route.user, machine: h.route.knownHostsName() + " " + h.route.address(), key: h.hostKey})
}

// promptPassword gives the person's password for the machine that the handshake is with.
func (h *handshake) promptPassword(question string) (answer string, err error) {
	err = h.withoutTimer(func() error {
		answer, h.sentPassword, err = h.cachedPassword().get(h.ctx, func(again bool) (string, error) {
			if again {
				question = "that was refused, " + question
			}
			return h.prompt(question)
		})
		h.userAsked = true
		return err
	})
	return answer, err
}

// prompt asks the person.
func (h *handshake) prompt(question string) (string, error) {
	h.userAsked = true
	answer, err := h.dialer.options.Prompt.Secret(h.ctx, question)
	if err != nil {
		h.tries = passwordTries // who does not answer is not asked again
	}
	return string(answer), err
}

// recordRefusal notes that the machine refused what was sent last, if that was a password.
func (h *handshake) recordRefusal() {
	if h.sentPassword > 0 {
		h.cachedPassword().refuse(h.sentPassword)
		h.sentPassword = 0
	}
}

// password gives the password of the user.
func (h *handshake) password() (string, error) {
	return h.promptPassword("password of " + h.route.user + " on " + h.route.String())
}

// passwordQuestion is how PAM and sshd ask for what does not change from one login to the next.
var passwordQuestion = lazyregexp.New(`(?i)^(\(\S+\) )?password( for \S+)?:\s*$`)

// answerQuestions passes on the questions of the machine.
func (h *handshake) answerQuestions(_, instruction string, questions []string, echos []bool) ([]string, error) {
	answers := make([]string, 0, len(questions))
	for i, q := range questions {
		question := h.route.user + " on " + h.route.String() + ", " + instruction + q
		var answer string
		var err error
		if len(questions) == 1 && !echos[i] && passwordQuestion.Get().MatchString(q) {
			answer, err = h.promptPassword(question)
		} else {
			err = h.withoutTimer(func() (err error) {
				answer, err = h.prompt(question)
				return err
			})
		}
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// interactiveMethod gives the method that a person has answers for, nil when there were tries enough.
func (h *handshake) interactiveMethod(method string) ssh.AuthMethod {
	if h.dialer.options.Prompt == nil || h.tries >= passwordTries {
		return nil
	}
	h.tries++
	if method == "password" {
		return ssh.PasswordCallback(h.password)
	}
	return ssh.KeyboardInteractive(h.answerQuestions)
}
