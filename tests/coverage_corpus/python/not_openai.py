"""OpenAI's client has messages, too."""

from openai import AsyncOpenAI, OpenAI

client = OpenAI()
thread = client.beta.threads.create()
client.beta.threads.messages.create(thread_id=thread.id, role="user", content="hi")
client.chat.completions.create(model="gpt-5", messages=[])
client.responses.create(model="gpt-5", input="hi")
client.completions.create(model="gpt-5", prompt="hi")
client.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h")


async def ask(openai_client):
    await AsyncOpenAI().chat.completions.create(model="gpt-5", messages=[])
    await openai_client.chat.completions.create(model="gpt-5", messages=[], max_tokens=3)
    await openai_client.beta.threads.messages.list(thread_id="t")
