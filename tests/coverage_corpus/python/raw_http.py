"""Past the SDK."""

import json
import urllib.request

import aiohttp
import httpx
import requests

BASE = "https://api.anthropic.com"
URL = f"{BASE}/v1/messages"

requests.post("https://api.anthropic.com/v1/messages", json={})  # expect: call unguarded
httpx.post(URL, json={})  # expect: call unguarded
session = requests.Session()
session.post(BASE + "/v1/messages", json={})  # expect: call unguarded
requests.request("POST", url=URL, json={})  # expect: call unguarded
request = urllib.request.Request(URL, data=json.dumps({}).encode(), method="POST")
urllib.request.urlopen(request)  # expect: call unguarded
bound = httpx.Client(base_url="https://api.anthropic.com")
bound.post("/v1/messages", json={})  # expect: call unguarded


async def ask():
    async with aiohttp.ClientSession() as http:
        async with http.post(URL, json={}) as answer:  # expect: call unguarded
            return await answer.json()


requests.get("https://api.anthropic.com/v1/models")
requests.post("https://example.com/v1/messages", json={})
print("https://api.anthropic.com/v1/messages")
