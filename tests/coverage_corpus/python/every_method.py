"""All that calls a model, and some that does not."""

from anthropic import Anthropic

client = Anthropic()  # expect: client unguarded

client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
client.messages.create(model="m", max_tokens=1, messages=[], stream=True)  # expect: call unguarded
with client.messages.stream(model="m", max_tokens=1, messages=[]) as stream:  # expect: call unguarded
    print(stream.get_final_text())
client.messages.parse(model="m", max_tokens=1, messages=[], output_format=dict)  # expect: call unguarded
client.messages.count_tokens(model="m", messages=[])  # expect: call unguarded
client.messages.batches.create(requests=[])  # expect: call unguarded
client.messages.batches.results("id")  # expect: call unguarded
client.beta.messages.create(model="m", max_tokens=1, messages=[], betas=[])  # expect: call unguarded
client.beta.messages.batches.retrieve("id")  # expect: call unguarded
runner = client.beta.messages.tool_runner(model="m", max_tokens=1, messages=[], tools=[])  # expect: call unguarded
for each in runner:
    print(each)
client.completions.create(model="m", max_tokens_to_sample=1, prompt="p")  # expect: call unguarded
client.messages.with_raw_response.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
client.with_raw_response.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
with client.messages.with_streaming_response.create(model="m", max_tokens=1, messages=[]) as raw:  # expect: call unguarded
    print(raw.headers)
client.post("/v1/messages", cast_to=dict, body={})  # expect: call unguarded

print(client.api_key, client.base_url, client.messages)
client.close()
