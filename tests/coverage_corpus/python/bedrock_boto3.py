"""AWS' own SDK."""

import boto3

runtime = boto3.client("bedrock-runtime", region_name="eu-central-1")
runtime.invoke_model(modelId="anthropic.claude-opus-4-8", body="{}")  # expect: call unguarded
runtime.converse(modelId="eu.anthropic.claude-opus-4-8", messages=[])  # expect: call unguarded
runtime.invoke_model(modelId="amazon.titan-text-express-v1", body="{}")

session = boto3.Session()
other = session.client(service_name="bedrock-runtime")
other.converse_stream(modelId="anthropic.claude-haiku-4-5", messages=[])  # expect: call unguarded

s3 = boto3.client("s3")
s3.put_object(Bucket="b", Key="k", Body=b"")
