/// Something done wrong on purpose, to see that the simulation finds it. Listed with what finds each in
/// `docs/simulation.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Effects are performed before their writes are durable.
    EffectsFirst,
    /// A build's end is shown and never written.
    DropBuildDone,
    /// Ends of attempts are not written, so leases are never given back.
    DropAttemptEnded,
    /// Starts are not written: after a restart nobody knows that the command runs.
    DropStepStarted,
    /// What a person asked for is done and never answered.
    DropIntentDone,
    /// A lost attempt does not count as a try.
    CountNoTry,
    /// A step found after a restart is started again and not followed.
    StartForFollow,
    /// A step's end is reported as passed whatever it was.
    AlwaysOk,
    /// A step's end overtakes the last of its output.
    EndBeforeOutput,
    /// A step's end is told before its log is on disk.
    EndBeforeSync,
    /// Output is asked for from one byte before the log's end, and taken as it comes.
    OffsetOneLess,
    /// Output is asked for from one byte past the log's end.
    OffsetOneMore,
    /// Of two followers of one step both write, for the first is not ended with its connection.
    TwoFollowers,
    /// What was to be done on a machine is done on it though it has gone and come back since.
    AnyLink,
    /// Machines that were cleaned are not reported free.
    ForgetFree,
    /// Cleaning a machine leaves its commands running.
    CleanFilesOnly,
    /// A connection that nobody waits for is given to whoever waits longest, as golang/build did.
    AnyPickup,
    /// After a restart the numbering of builds begins anew.
    ForgetNumbers,
    /// A restart forgets what was waiting.
    ForgetWaiting,
    /// A restart forgets which machine is held by which attempt.
    ForgetLeases,
    /// A restart forgets which machines are lent.
    ForgetLoans,
    /// A build that a slow comparison found missing is made though it is there by then.
    StaleWants,
    /// A cancelled attempt is answered for when its end begins.
    AnswerCancelEarly,
    /// Whatever is asked about one build is answered at once, by what was known of it before.
    EveryWish,
    /// What is heard of one attempt is taken for the build's latest.
    AnyAttempt,
}

impl Fault {
    pub const ALL: [Fault; 25] = [
        Fault::EffectsFirst,
        Fault::DropBuildDone,
        Fault::DropAttemptEnded,
        Fault::DropStepStarted,
        Fault::DropIntentDone,
        Fault::CountNoTry,
        Fault::StartForFollow,
        Fault::AlwaysOk,
        Fault::EndBeforeOutput,
        Fault::EndBeforeSync,
        Fault::OffsetOneLess,
        Fault::OffsetOneMore,
        Fault::TwoFollowers,
        Fault::AnyLink,
        Fault::ForgetFree,
        Fault::CleanFilesOnly,
        Fault::AnyPickup,
        Fault::ForgetNumbers,
        Fault::ForgetWaiting,
        Fault::ForgetLeases,
        Fault::ForgetLoans,
        Fault::StaleWants,
        Fault::AnswerCancelEarly,
        Fault::EveryWish,
        Fault::AnyAttempt,
    ];
}
