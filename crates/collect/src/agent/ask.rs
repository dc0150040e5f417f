//! Further questions through the agent: in one shell command where the agent allows that, else file by file.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    time::Instant,
};

use vmgate_facts::{Cause, Unknown};
use vmgate_probe::guest::{
    TOTAL_LIMIT,
    ask::{self, Answers, Question},
};
use vmgate_reach::agent::AgentChannel;

use super::{AgentGuest, script::Running};

/// Questions that a shell answers; none where there are no questions.
struct AskedQuestions {
    questions: BTreeSet<Question>,
    mark: String,
    running: Option<Result<Running, Unknown>>,
}

impl<C: AgentChannel> AgentGuest<C> {
    pub(super) fn answers(&self, questions: &BTreeSet<Question>) -> Answers {
        match &self.gathered {
            // Files and commands separately, so that a command that hangs does not cost the files.
            Ok(_) => {
                let (files, commands): (BTreeSet<Question>, BTreeSet<Question>) =
                    questions.iter().cloned().partition(|question| matches!(question, Question::File(_)));
                let asked = [files, commands].map(|questions| self.start(questions));
                asked.into_iter().flat_map(|asked| self.answers_of(asked)).collect()
            }
            Err(why) => questions.iter().map(|one| (one.clone(), self.by_file(one, why))).collect(),
        }
    }

    fn start(&self, questions: BTreeSet<Question>) -> AskedQuestions {
        let mark = format!("vmgate-{:016x}", RandomState::new().hash_one(Instant::now()));
        let running = (!questions.is_empty())
            .then(|| Running::start(&self.agent, &ask::script(&questions, &mark), self.deadline));
        AskedQuestions { questions, mark, running }
    }

    fn answers_of(&self, asked: AskedQuestions) -> Answers {
        let AskedQuestions { questions, mark, running } = asked;
        let Some(running) = running else { return Answers::new() };
        let output =
            running.and_then(|running| running.output(&self.agent, self.deadline)).and_then(|output| {
                self.spent.set(self.spent.get().saturating_add(output.len()));
                if self.spent.get() > TOTAL_LIMIT {
                    return Err(Unknown::new(
                        Cause::Malformed,
                        format!(
                            "all answers of the guest together are larger than {} MiB",
                            TOTAL_LIMIT >> 20
                        ),
                    ));
                }
                Ok(output)
            });
        match output {
            Ok(output) => ask::answers(&questions, &output, &mark),
            Err(why) => questions.into_iter().map(|question| (question, Err(why.clone()))).collect(),
        }
    }

    fn by_file(&self, question: &Question, no_shell: &Unknown) -> Result<Vec<u8>, Unknown> {
        match question {
            Question::File(path) => self.read_file(path.as_str()),
            Question::Command(_) => Err(no_shell.clone()),
        }
    }
}
