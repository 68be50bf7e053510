# docker build -t dreamerv2 .
# docker run --rm -v "$PWD/runs:/dreamerv2/runs" dreamerv2     (films an agent: runs/watch.gif)
# docker run --rm -it -v "$PWD/runs:/dreamerv2/runs" dreamerv2 make train     (-it: Ctrl-C saves)
# docker run --rm -it -v "$PWD/runs:/dreamerv2/runs" -p 127.0.0.1:8000:8000 dreamerv2 \
#   make dream ARGS="--host 0.0.0.0"
#
# On a GPU the host needs NVIDIA's driver and container toolkit; CUDA comes with the extra `cuda`:
# docker build -t dreamerv2 --build-arg EXTRAS=classic,cuda,dream,minatar,test .
# docker run --rm -it --gpus all -v "$PWD/runs:/dreamerv2/runs" dreamerv2 make train
#
# TensorFlow's own GPU images do not serve as a base: since 2.18 they have cuDNN 8.9, and
# TensorFlow looks for cuDNN 9 (github.com/tensorflow/build, issue 221).
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /dreamerv2
COPY . .
# The dependencies with their tested versions.
ARG EXTRAS=classic,dream,minatar,test
RUN make setup EXTRAS=${EXTRAS}
ENV PYTHONUNBUFFERED=1

CMD ["make", "watch"]
