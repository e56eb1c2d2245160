"""`import a.b` and `import a.b as c`."""

import anthropic.lib.bedrock
import anthropic.lib.vertex as vertex

bedrock = anthropic.lib.bedrock.AnthropicBedrock()  # expect: client unguarded
google = vertex.AsyncAnthropicVertex(region="europe-west1", project_id="p")  # expect: client unguarded
bedrock.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


async def ask():
    return await google.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
