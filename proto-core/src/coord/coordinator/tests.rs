//! Tests of the coordinator, alone and with sessions.
