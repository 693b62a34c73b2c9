package wire

// An Insight is what a role can do, worked out from its documents. It may say
// more than AWS would allow, and not less: at_least says where it is not all,
// at_most where something limits it that is not counted.
type Insight struct {
	Summary       string         `json:"summary"`
	Facts         []string       `json:"facts"` // at most ten, the gravest first
	Marks         []Mark         `json:"marks"`
	Services      []ServiceReach `json:"services"`
	AtLeast       []string       `json:"at_least"` // what could not be looked at
	AtMost        string         `json:"at_most"`  // what limits it; empty where nothing is known to
	Unlisted      []string       `json:"unlisted"` // actions that are allowed and that AWS's list does not have
	ReferenceDate string         `json:"reference_date"`
}

// ToDecide is what there is to know at a glance for whoever decides a request:
// what its role can do, what it gained and lost since it was last approved, and
// how often the person asked for it before.
type ToDecide struct {
	Summary string   `json:"summary"` // one sentence
	Marks   []string `json:"marks"`   // kinds of marks, the gravest first
	Facts   []string `json:"facts"`   // at most ten, the gravest first
	AtLeast bool     `json:"at_least"`
	AtMost  string   `json:"at_most"`
	Since   *Since   `json:"since"` // null where there was no approval, or nobody knows what the role was then
	Earlier Earlier  `json:"earlier"`
}

// Since is what changed of a role since an approval: of what is in force, or else
// the last that the person had for the role (own), or else the last that anybody
// had under the same access policy.
type Since struct {
	ApprovedAt Time     `json:"approved_at"`
	Own        bool     `json:"own"`
	Escalated  bool     `json:"escalated"` // it makes an administrator now, or can, and could not then
	Sentences  []string `json:"sentences"` // at most ten, the gravest first; empty where nothing changed
	More       int      `json:"more"`      // sentences beyond those
	AtLeast    bool     `json:"at_least"`  // not everything could be looked at
}

// Earlier is how often the person asked for the role before.
type Earlier struct {
	Times    int  `json:"times"`
	More     bool `json:"more"`     // there were more than those
	Approved int  `json:"approved"` // of those, how many were
	LastAt   Time `json:"last_at"`  // null where there were none
}

// A Mark is something dangerous that a role can do. Kind is administrator,
// privilege_escalation, credentials_exposure, resource_exposure or data_access.
type Mark struct {
	Kind        string    `json:"kind"`
	Path        string    `json:"path"`  // of a privilege escalation: its name in the published list
	Title       string    `json:"title"` // to be read after "can"
	Reference   string    `json:"reference"`
	Statement   Statement `json:"statement"` // that causes it
	Actions     []string  `json:"actions"`
	More        int       `json:"more"` // actions beyond those
	Resources   []string  `json:"resources"`
	Everywhere  bool      `json:"everywhere"`
	Conditional bool      `json:"conditional"`
}

// A Statement names a statement of a role's policies.
type Statement struct {
	Policy string `json:"policy"`
	Number int    `json:"number"` // from 1
	Sid    string `json:"sid"`
}

// A ServiceReach is what is allowed of a service, by access level.
type ServiceReach struct {
	Prefix string  `json:"prefix"`
	Name   string  `json:"name"`
	Levels []Reach `json:"levels"`
}

// A Reach is how many actions of a level are allowed somewhere, how many of them
// everywhere, and how many there are.
type Reach struct {
	Level      string `json:"level"`
	Actions    int    `json:"actions"`
	Everywhere int    `json:"everywhere"`
	Of         int    `json:"of"`
}

// A Change is what differs between two states of a role, by meaning.
type Change struct {
	Sentences   []string        `json:"sentences"` // the gravest first
	Escalated   bool            `json:"escalated"` // it makes an administrator now, or can, and could not before
	Gained      ChangedActions  `json:"gained"`
	Lost        ChangedActions  `json:"lost"`
	GainedMarks []Mark          `json:"gained_marks"`
	LostMarks   []Mark          `json:"lost_marks"`
	Policies    []ChangedPolicy `json:"policies"`
	Statements  []ChangedText   `json:"statements"`
	Trust       []ChangedText   `json:"trust"`
	Facts       []ChangedFact   `json:"facts"` // tags, boundary, maximum session, description, path
	AtLeast     []string        `json:"at_least"`
}

// ChangedActions are actions that were gained or lost: the count of all, and the
// names of the first of them.
type ChangedActions struct {
	Count    int            `json:"count"`
	Wider    int            `json:"wider"` // of these, allowed on more or less than before
	Names    []string       `json:"names"`
	Services []ServiceReach `json:"services"`
}

// A ChangedPolicy is a policy that was added, removed or changed.
type ChangedPolicy struct {
	How    string `json:"how"`
	Policy string `json:"policy"`
	Detail string `json:"detail"`
}

// A ChangedText is a statement that was added or removed.
type ChangedText struct {
	How    string `json:"how"`
	Policy string `json:"policy"`
	Text   string `json:"text"`
}

// A ChangedFact is something else of a role that changed.
type ChangedFact struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// RoleVersions are the newest versions of a role, the newest first.
type RoleVersions struct {
	Versions []RoleVersion `json:"versions"`
}

// A RoleVersion is a state of a role that is kept, and what changed from the one
// before; change is null of the oldest.
type RoleVersion struct {
	Number  int64   `json:"number"`
	At      Time    `json:"at"` // when it was taken in; null where that is not known
	Current bool    `json:"current"`
	Change  *Change `json:"change"`
}

// A RoleChange is the difference between two versions of a role.
type RoleChange struct {
	From   RoleVersion `json:"from"`
	To     RoleVersion `json:"to"`
	Change Change      `json:"change"`
}
