package shell

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"

	"mlfnode/grid/lazyregexp"
)

// passwordTries is how often OpenSSH asks for a password.
const passwordTries = 3

// login is a user of a machine. The host key is part of it: a password that was typed for one
// machine is not sent to another that took its address.
type login struct{ user, machine, key string }

// passwordCache stores the passwords that were typed while the Dialer exists: the user is asked
// once for each login, however often it is connected to.
type passwordCache struct {
	mu      sync.Mutex
	byLogin map[login]*password
}

// get returns the password of a login.
func (c *passwordCache) get(l login) *password {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byLogin[l] == nil {
		c.byLogin[l] = &password{turn: make(chan struct{}, 1)}
	}
	return c.byLogin[l]
}

// password is the last answer for a login. Answers are numbered, so that a connection whose first
// answer is refused does not count the second, which another connection has asked for meanwhile, as
// refused.
type password struct {
	turn chan struct{} // held while the user is asked

	mu      sync.Mutex
	answer  string
	number  int // of answer, 0 for none
	refused int // the last refused answer
}

// get returns the stored answer, or asks for one. again says that the last one was refused.
func (p *password) get(
	ctx context.Context, ask func(again bool) (string, error),
) (answer string, number int, err error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return "", 0, context.Cause(ctx)
	}
	p.mu.Lock()
	answer, number = p.answer, p.number
	usable := number > p.refused
	p.mu.Unlock()
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

// userAnswers is the user's part of a handshake: the machine's questions, and what was answered.
type userAnswers struct {
	handshake    *handshake
	userAsked    bool // now or for an earlier connection
	sentPassword int  // the number of the password that was sent and not answered yet, 0 for none
	tries        int  // how often answers were sent
}

// cachedPassword returns the password of the login that the handshake is for.
func (a *userAnswers) cachedPassword() *password {
	h := a.handshake
	machine := h.route.knownHostsName() + " " + h.route.address()
	return h.dialer.passwords.get(login{user: h.route.user, machine: machine, key: h.hostKey})
}

// promptPassword returns the user's password for the machine, and asks for it if necessary.
func (a *userAnswers) promptPassword(question string) (answer string, err error) {
	err = a.handshake.withoutTimer(func() error {
		answer, a.sentPassword, err = a.cachedPassword().get(a.handshake.ctx, func(again bool) (string, error) {
			if again {
				question = "that was refused, " + question
			}
			return a.prompt(question)
		})
		a.userAsked = true
		return err
	})
	return answer, err
}

// prompt asks the user.
func (a *userAnswers) prompt(question string) (string, error) {
	a.userAsked = true
	answer, err := a.handshake.dialer.options.Prompt.Secret(a.handshake.ctx, question)
	if err != nil {
		a.tries = passwordTries // a user who does not answer is not asked again
	}
	return string(answer), err
}

// recordRefusal records that the machine refused the last answer, if that was a password.
func (a *userAnswers) recordRefusal() {
	if a.sentPassword > 0 {
		p := a.cachedPassword()
		p.mu.Lock()
		p.refused = max(p.refused, a.sentPassword)
		p.mu.Unlock()
		a.sentPassword = 0
	}
}

// passwordQuestion is how PAM and sshd ask for what does not change from one login to the next.
var passwordQuestion = lazyregexp.New(`(?i)^(\(\S+\) )?password( for \S+)?:\s*$`)

// answerQuestions asks the user the machine's questions.
func (a *userAnswers) answerQuestions(_, instruction string, questions []string, echos []bool) ([]string, error) {
	answers := make([]string, 0, len(questions))
	for i, q := range questions {
		question := a.handshake.route.user + " on " + a.handshake.route.String() + ", " + instruction + q
		var answer string
		var err error
		if len(questions) == 1 && !echos[i] && passwordQuestion.Get().MatchString(q) {
			answer, err = a.promptPassword(question)
		} else {
			err = a.handshake.withoutTimer(func() (err error) {
				answer, err = a.prompt(question)
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

// method returns a method that asks the user, or nil after too many tries.
func (a *userAnswers) method(name string) ssh.AuthMethod {
	if a.handshake.dialer.options.Prompt == nil || a.tries >= passwordTries {
		return nil
	}
	a.tries++
	if name == "password" {
		r := a.handshake.route
		return ssh.PasswordCallback(func() (string, error) {
			return a.promptPassword("password of " + r.user + " on " + r.String())
		})
	}
	return ssh.KeyboardInteractive(a.answerQuestions)
}
