package serval

import "time"

// A NoticeState says what became of a notice.
type NoticeState string

// What became of a notice.
const (
	NoticePending NoticeState = "pending"
	NoticeSent    NoticeState = "sent"
	NoticeFailed  NoticeState = "failed" // for good
)

// A Notice tells people of something outside of the pages. That it fails blocks
// nothing: it is shown beside what it tells of, and recorded.
type Notice struct {
	ID        string
	Kind      Action // what it tells of
	RequestID string
	Channel   string // empty where none is configured
	To        People
	Facts     map[string]string // what the message is made of
	CreatedAt time.Time

	State    NoticeState
	Attempts int
	NextAt   time.Time // of the next attempt, while it is pending
	EndedAt  time.Time
	Error    string // of the last attempt
}
