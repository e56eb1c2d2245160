"""Does what the core of a call asks for: a driver for each kind of client, of a few lines each."""

import asyncio
from contextlib import suppress
from typing import cast
from weakref import WeakKeyDictionary

import httpx2
from anthropic import APIResponse, AsyncAPIResponse
from anthropic._base_client import BaseClient

from relight.engine.clock import Clock
from relight.engine.guard.alarms import LoopAlarms
from relight.engine.guard.answers import raised_by
from relight.engine.guard.cutting import ThreadAlarms
from relight.engine.guard.steps import AnyResponse, HandOut, Pause, Release, Send, Steps
from relight.engine.guard.streams import watch_async, watch_sync
from relight.engine.guard.waits import Waits
from relight.engine.guard.watching import StreamEnd
