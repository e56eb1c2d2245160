"""Twilio's, Django's and others' messages."""

from django.contrib import messages
from twilio.rest import Client

client = Client("sid", "token")
client.messages.create(body="hi", from_="+1", to="+2")
client.messages.stream(limit=3)


def notify(sms, mailbox):
    sms.messages.create(body="hi", from_="+1", to="+2")
    mailbox.users().messages().send(userId="me", body={}).execute()


def view(request):
    messages.success(request, "saved")
    request.user.messages.create(text="hi")
