# docker build -t dreamerv2 .
# docker run --rm -v "$PWD/runs:/dreamerv2/runs" dreamerv2 make train
#
# On a GPU, from TensorFlow's image, and with the GPUs given to the container:
# docker build -t dreamerv2 --build-arg BASE=tensorflow/tensorflow:2.21.0-gpu .
# docker run --rm --gpus all -v "$PWD/runs:/dreamerv2/runs" dreamerv2 make train
ARG BASE=python:3.11-slim
FROM ${BASE}

# python3-venv, for TensorFlow's image: what is installed lives in an environment of its own.
RUN apt-get update \
    && apt-get install -y --no-install-recommends make python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /dreamerv2
COPY . .
# The dependencies with their tested versions. On a GPU the libraries of the image serve: no extra `cuda`.
RUN make setup EXTRAS=classic,dream,minatar,test
ENV PYTHONUNBUFFERED=1

CMD ["make", "watch"]
