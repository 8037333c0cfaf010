//! What is done with a unit: started around a process, changed, joined, stopped.

use super::{Kind, SavedUnit, Systemd};
use crate::dbus::{Broken, Deadline, Failure, Message, Type, Value};
use crate::error::{Error, Result};
use crate::plan::cgroup::systemd::{Property, UnitPlan};

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// The refusal of a property that this version of systemd does not know.
const READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

/// The end of a job of `unit`, if `signal` tells one: its object and its result.
pub(super) fn job_of(signal: &Message, unit: &str) -> Option<(String, String)> {
    let tells = signal.interface == super::MANAGER && signal.member == "JobRemoved" && signal.signature == "uoss";
    if !tells {
        return None;
    }
    let mut body = signal.body();
    let (_, job, whose, result) = (body.number()?, body.text()?, body.text()?, body.text()?);
    (whose == unit).then_some((job, result))
}

fn list<'a>(properties: impl Iterator<Item = &'a Property>) -> Value {
    let entry =
        |property: &Property| Value::Struct(vec![Value::text(&*property.name), Value::variant(property.value.clone())]);
    Value::Array(Type::Struct(vec![Type::Text, Type::Variant]), properties.map(entry).collect())
}

impl Systemd {
    /// Starts the unit of a plan around process `pid`; returns when systemd has put it there.
    pub fn start(&mut self, plan: &UnitPlan, devices: &[Property], pid: i32) -> Result<()> {
        let deadline = Deadline::within(self.patience);
        let what = format!("start the systemd unit {}", plan.name);
        let pid = u32::try_from(pid).map_err(|_| Error::invalid(format!("{what}: there is no process {pid}")))?;
        let process = Property { name: "PIDs".into(), value: Value::Array(Type::U32, vec![Value::U32(pid)]), since: 0 };
        let all = plan.properties.iter().chain(devices).chain([&process]).chain(&plan.asked);
        let mut properties: Vec<Property> = all.cloned().collect();
        let auxiliary =
            Type::Struct(vec![Type::Text, Type::Array(Box::new(Type::Struct(vec![Type::Text, Type::Variant])))]);
        let (mut reset, mut sorted) = (false, false);
        loop {
            let arguments = [
                Value::text(&*plan.name),
                Value::text("replace"),
                list(properties.iter()),
                Value::Array(auxiliary.clone(), Vec::new()),
            ];
            match self.ask("StartTransientUnit", &arguments, &plan.name, deadline) {
                Ok(answer) => return self.wait_for_start(&what, &plan.name, &answer, deadline),
                // One that failed stays until somebody has looked at it.
                Err(Failure::Refused(refusal)) if refusal.name == UNIT_EXISTS && !reset => {
                    reset = true;
                    self.reset(&plan.name, deadline);
                }
                Err(Failure::Refused(refusal)) if refusal.name == UNIT_EXISTS => {
                    return Err(Error::new(
                        Kind::Exists,
                        format!(
                            "{what}: a unit of that name is there already; stop it (systemctl stop {}), or choose another \
                             linux.cgroupsPath",
                            plan.name
                        ),
                    ));
                }
                Err(Failure::Refused(refusal)) if refusal.name == READ_ONLY && !sorted => {
                    sorted = true;
                    self.retain_known(&mut properties)?;
                }
                Err(failure) => return Err(self.told(&what, failure)),
            }
        }
    }

    /// Leaves out what this version of systemd does not have.
    fn retain_known(&mut self, properties: &mut Vec<Property>) -> Result<()> {
        let text = self.property("Version")?;
        let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
        let version: u16 = digits[..end].parse().unwrap_or(0);
        properties.retain(|property| property.since <= version);
        Ok(())
    }

    fn wait_for_start(&mut self, what: &str, unit: &str, answer: &Message, deadline: Deadline) -> Result<()> {
        let result = self.wait_for_job(unit, answer, deadline);
        if !matches!(result.as_deref(), Ok("done")) {
            self.reset(unit, Deadline::within(self.patience));
        }
        match result {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(Error::caused(
                Kind::System,
                what,
                format!("its job ended with {result:?}; systemctl status {unit} or the journal says why"),
            )),
            Err(broken) => Err(self.told(what, Failure::Broken(broken))),
        }
    }

    /// Waits for the end of the job that `answer` names; returns its result.
    fn wait_for_job(&mut self, unit: &str, answer: &Message, deadline: Deadline) -> Result<String, Broken> {
        let job = answer.body().text().ok_or(Broken::Nonsense)?;
        // A bus passes on what anybody sends to us: who answered is who may tell.
        let ends = |signal: &Message| {
            let end = job_of(signal, unit).filter(|(path, _)| *path == job && signal.sender == answer.sender);
            end.map(|(_, result)| result)
        };
        let signal = self.connection.signal(|signal| ends(signal).is_some(), deadline)?;
        ends(&signal).ok_or(Broken::Nonsense)
    }

    /// Changes properties of a unit while it runs.
    pub fn set(&mut self, unit: &SavedUnit, mut properties: Vec<Property>) -> Result<()> {
        let deadline = Deadline::within(self.patience);
        let what = format!("change the systemd unit {}", unit.name);
        let mut sorted = false;
        loop {
            let arguments = [Value::text(&*unit.name), Value::Bool(true), list(properties.iter())];
            match self.ask("SetUnitProperties", &arguments, &unit.name, deadline) {
                Ok(_) => return Ok(()),
                Err(Failure::Refused(refusal)) if refusal.name == READ_ONLY && !sorted => {
                    sorted = true;
                    self.retain_known(&mut properties)?;
                }
                Err(failure) => return Err(self.told(&what, failure)),
            }
        }
    }

    /// Puts a process into a unit that is there.
    pub fn attach(&mut self, unit: &SavedUnit, pid: i32) -> Result<()> {
        let what = format!("put process {pid} into the systemd unit {}", unit.name);
        let pid = u32::try_from(pid).map_err(|_| Error::invalid(format!("{what}: there is no such process")))?;
        let pids = Value::Array(Type::U32, vec![Value::U32(pid)]);
        let arguments = [Value::text(&*unit.name), Value::text(""), pids];
        let deadline = Deadline::within(self.patience);
        self.ask("AttachProcessesToUnit", &arguments, &unit.name, deadline)
            .map(drop)
            .map_err(|failure| self.told(&what, failure))
    }

    /// Stops a unit whose processes have ended, so that nothing is left of it. One that is gone is stopped.
    pub fn stop(&mut self, unit: &SavedUnit) -> Result<()> {
        let deadline = Deadline::within(self.patience);
        let what = format!("stop the systemd unit {}", unit.name);
        let answer =
            match self.ask("StopUnit", &[Value::text(&*unit.name), Value::text("replace")], &unit.name, deadline) {
                Err(Failure::Refused(refusal)) if refusal.name == NO_SUCH_UNIT => return Ok(()),
                answer => answer.map_err(|failure| self.told(&what, failure))?,
            };
        let result = self.wait_for_job(&unit.name, &answer, deadline);
        self.reset(&unit.name, deadline);
        match result {
            Ok(_) => Ok(()),
            Err(broken) => Err(self.told(&what, Failure::Broken(broken))),
        }
    }

    /// Forgets that a unit failed. Mostly it has not, or is gone; what matters is whether its name is free, which is seen
    /// when it is used.
    fn reset(&mut self, unit: &str, deadline: Deadline) {
        let _ = self.ask("ResetFailedUnit", &[Value::text(unit)], unit, deadline);
    }
}
