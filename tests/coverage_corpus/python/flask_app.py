"""Flask, with g and current_app."""

from anthropic import Anthropic
from flask import Flask, current_app, g, jsonify, request

app = Flask(__name__)
app.config["CLIENT"] = Anthropic()  # expect: client unguarded


def get_client():
    if "client" not in g:
        g.client = Anthropic()  # expect: client unguarded
    return g.client


@app.route("/ask", methods=["POST"])
def ask():
    reply = get_client().messages.create(model="m", max_tokens=1, messages=request.json)  # expect: call unguarded
    return jsonify(reply.model_dump())


@app.get("/other")
def other():
    client = current_app.config["CLIENT"]
    return client.messages.create(model="m", max_tokens=1, messages=[]).model_dump()  # expect: call unguarded
