"""Messages of other kinds."""

import discord
import mistralai
import zulip
from django.db import models
from groq import Groq
from slack_sdk import WebClient


class Message(models.Model):
    text = models.TextField()


class Inbox:
    def __init__(self, session):
        self.client = zulip.Client()
        self.messages = session.query(Message)

    def create(self, **fields):
        Message.objects.create(**fields)
        return self.messages.create(text="x", model=fields.get("model"))

    def stream(self):
        return self.client.messages.stream(limit=3)


Groq().chat.completions.create(model="llama", messages=[], max_tokens=3)
mistralai.Mistral().chat.complete(model="m", messages=[], max_tokens=3)
WebClient().chat_postMessage(channel="c", text="x")
discord.Client().messages.create(model="m", messages=["x"], max_tokens=1)
Inbox(None).create(model="m", messages=["x"])
