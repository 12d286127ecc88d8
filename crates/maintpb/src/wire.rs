/// Groups within groups that are believed; no schema here has any.
const DEEPEST: u32 = 100;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a field ends after its message does")]
    Short,
    #[error("a varint of more than 64 bits")]
    LongVarint,
    #[error("a field number or wire type that there is not")]
    BadTag,
    #[error("a group that is not closed as it was opened, or lies too deep")]
    BadGroup,
}

/// What a field holds, by its wire type alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a wire type that no known field has: skipped.
    Other,
}

/// Takes the fields off a message, one by one.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    #[inline]
    pub fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        Ok(Some((number, self.value(number, wire_type, DEEPEST)?)))
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u32), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed::BadTag)?;
        match tag >> 3 {
            0 => Err(Malformed::BadTag),
            number => Ok((number, tag & 7)),
        }
    }

    #[inline]
    fn value(&mut self, number: u32, wire_type: u32, depth: u32) -> Result<Value<'a>, Malformed> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take(8).map(|_| Value::Other),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed::Short)?;
                self.take(len).map(Value::Bytes)
            }
            3 => self.skip_group(number, depth).map(|()| Value::Other),
            4 => Err(Malformed::BadGroup),
            5 => self.take(4).map(|_| Value::Other),
            _ => Err(Malformed::BadTag),
        }
    }

    fn skip_group(&mut self, opened: u32, depth: u32) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::BadGroup)?;
        loop {
            match self.tag()? {
                (number, 4) if number == opened => return Ok(()),
                (number, wire_type) => self.value(number, wire_type, depth)?,
            };
        }
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        if let [first @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        let mut value = 0;
        for at in 0..10 {
            let byte = *self.rest.get(at).ok_or(Malformed::Short)?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return if at == 9 && byte > 1 {
                    Err(Malformed::LongVarint)
                } else {
                    Ok(value)
                };
            }
        }
        Err(Malformed::LongVarint)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }
}
